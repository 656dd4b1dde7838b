"""What stands at the site now and what stood before: the generations between which it can go back and forth.

A site's generation is what one satellite state came to under its tags, all groups together. The one before stays
pinned, so that going back needs no byte from the source.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.state.desired import LocalTag
from harbor_satellite.state.wire import AppliedGroup

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from harbor_satellite.satellite.store import SatelliteStore

_FILE: Final = "generations.json"


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands under one name."""

    digest: Digest
    groups: tuple[str, ...] = ()
    """Who wants it."""
    platforms: tuple[Platform, ...] = ()
    """Children of an index that were brought; empty: all."""


@dataclass(frozen=True, slots=True)
class SiteGeneration:
    """What one satellite state came to at this site."""

    state_digest: Digest
    published_at: datetime
    names: Mapping[LocalTag, Standing]
    groups: tuple[AppliedGroup, ...] = ()

    def digests(self) -> dict[LocalTag, Digest]:
        """Return the digest under each name."""
        return {name: standing.digest for name, standing in self.names.items()}

    def contents(self) -> frozenset[tuple[str, Digest]]:
        """Return each content by repository and digest."""
        return frozenset((name.repository, standing.digest) for name, standing in self.names.items())


@dataclass(frozen=True, slots=True)
class Generations:
    """The site's current and previous generation."""

    current: SiteGeneration | None = None
    previous: SiteGeneration | None = None
    pins: frozenset[tuple[str, Digest]] = field(default_factory=frozenset)
    """Content, by repository and digest, that has a tag of ours so that no garbage collection takes it."""
    stale: frozenset[tuple[str, Digest]] = field(default_factory=frozenset)
    """Pins that nothing needs since the last publication: the next run takes them away, not one that may cut a pull."""
    is_open: bool = False
    """Whether the current generation is being published: until that is done, what stood before it is the previous."""
    held: Digest | None = None
    """The satellite state that an operator went back from: not followed until the centre publishes another."""

    def pins_needed(self) -> frozenset[tuple[str, Digest]]:
        """Return the content of the previous generation that no name of the current one keeps."""
        if self.previous is None:
            return frozenset()
        return self.previous.contents() - (self.current.contents() if self.current else frozenset())

    def pins_kept(self) -> frozenset[tuple[str, Digest]]:
        """Return all content that a pin holds: that of the previous generation, and what is wanted by its digest."""
        names = self.current.names.items() if self.current else ()
        by_digest = {(name.repository, standing.digest) for name, standing in names if name.is_digest}
        return self.pins_needed() | by_digest

    def published(self, generation: SiteGeneration, *, is_waiting: bool = False) -> Generations:
        """Return the generations after this one was published.

        What continues the same state, or changes nothing under any name, takes the current one's place, and so does
        what comes after a publication that was killed; else the current one becomes the previous. While a group
        waits and no name has changed, everything stays as it is.
        """
        current = self.current
        if current is not None and is_waiting and current.digests() == generation.digests():
            return replace(self, held=None if current.state_digest != generation.state_digest else self.held)
        is_same_state = current is not None and current.state_digest == generation.state_digest
        is_same = self.is_open or is_same_state or (current is not None and current.digests() == generation.digests())
        return replace(
            self,
            current=generation,
            previous=self.previous if is_same else current,
            held=self.held if is_same_state else None,
        )

    def rolled_back(self, followed: Digest | None) -> Generations:
        """Return the generations after going back: current and previous change places.

        Args:
            followed: the newest state that was seen, which is not to be followed any more; None: the current one's.
        """
        newest = self.held or followed or (self.current.state_digest if self.current else None)
        if self.previous and self.previous.state_digest == newest:
            newest = None  # forth again, to where the centre is
        return replace(self, current=self.previous, previous=self.current, held=newest)


def load_generations(store: SatelliteStore) -> Generations:
    """Read the generations; none before the first run.

    Raises:
        StorageError: the file is damaged.
    """
    return store.parsed(_FILE, _generations)


def _generations(document: Mapping[str, Any] | None) -> Generations:
    if document is None:
        return Generations()
    return Generations(
        current=_generation(document["current"]),
        previous=_generation(document["previous"]),
        pins=_contents(document["pins"]),
        stale=_contents(document.get("stale", ())),
        held=Digest.parse(document["held"]) if document["held"] else None,
        is_open=bool(document.get("is_open")),
    )


def save_generations(store: SatelliteStore, generations: Generations) -> None:
    """Keep the generations."""
    store.write_document(
        _FILE,
        {
            "current": _generation_json(generations.current),
            "previous": _generation_json(generations.previous),
            "pins": _contents_json(generations.pins),
            "stale": _contents_json(generations.stale),
            "held": str(generations.held) if generations.held else None,
            "is_open": generations.is_open,
        },
    )


def _contents(items: Iterable[Mapping[str, Any]]) -> frozenset[tuple[str, Digest]]:
    return frozenset((item["repository"], Digest.parse(item["digest"])) for item in items)


def _contents_json(contents: Collection[tuple[str, Digest]]) -> list[dict[str, str]]:
    return [{"repository": repository, "digest": str(digest)} for repository, digest in sorted(contents)]


def _generation(document: Mapping[str, Any] | None) -> SiteGeneration | None:
    if document is None:
        return None
    return SiteGeneration(
        state_digest=Digest.parse(document["state_digest"]),
        published_at=datetime.fromisoformat(document["published_at"]),
        names={
            LocalTag(item["repository"], item["tag"]): Standing(
                Digest.parse(item["digest"]),
                tuple(item["groups"]),
                tuple(Platform.parse(one) for one in item.get("platforms", ())),
            )
            for item in document["names"]
        },
        groups=tuple(AppliedGroup.model_validate(item) for item in document["groups"]),
    )


def _generation_json(generation: SiteGeneration | None) -> dict[str, Any] | None:
    if generation is None:
        return None
    return {
        "state_digest": str(generation.state_digest),
        "published_at": generation.published_at.isoformat(),
        "names": [
            {
                "repository": name.repository,
                "tag": name.tag,
                "digest": str(standing.digest),
                "groups": list(standing.groups),
                "platforms": [str(one) for one in standing.platforms],
            }
            for name, standing in sorted(generation.names.items(), key=lambda item: item[0])
        ],
        "groups": [group.model_dump() for group in generation.groups],
    }
