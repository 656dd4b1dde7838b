"""A repository's ``index.json`` as a value: which manifests there are, and which tag names which.

Pure: bytes in, bytes out; reading and writing the file is ``layout_repository.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, index_bytes, parse_manifest
from harbor_satellite.oci.digest import Digest, is_digest
from harbor_satellite.oci.reference import check_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TAG_ANNOTATION: Final = "org.opencontainers.image.ref.name"
"""image-spec, image-layout.md: the tag of an entry in ``index.json``."""


@dataclass(frozen=True, slots=True)
class RepositoryIndex:
    """Every manifest of one repository; a manifest may carry any number of tags, or none."""

    manifests: Mapping[Digest, Descriptor] = field(default_factory=dict, hash=False)
    tags: Mapping[str, Digest] = field(default_factory=dict, hash=False)

    def find(self, reference: str) -> Descriptor | None:
        """Return what a tag or a digest names."""
        digest = Digest.parse(reference) if is_digest(reference) else self.tags.get(reference)
        return None if digest is None else self.manifests.get(digest)

    def with_manifest(self, descriptor: Descriptor, tags: Iterable[str]) -> RepositoryIndex:
        """Return this index with one more manifest; tags it takes from another leave that one untagged."""
        return RepositoryIndex(
            {**self.manifests, descriptor.digest: descriptor},
            {**self.tags, **dict.fromkeys(tags, descriptor.digest)},
        )

    def without_tag(self, tag: str) -> RepositoryIndex:
        """Return this index without a tag; its manifest stays."""
        return RepositoryIndex(self.manifests, {name: digest for name, digest in self.tags.items() if name != tag})

    def without_manifest(self, digest: Digest) -> RepositoryIndex:
        """Return this index without a manifest and without its tags."""
        return RepositoryIndex(
            {key: descriptor for key, descriptor in self.manifests.items() if key != digest},
            {tag: named for tag, named in self.tags.items() if named != digest},
        )

    def to_bytes(self) -> bytes:
        """Write the index as image-spec wants it: one entry per tag, one for a manifest without any."""
        return index_bytes(self._entries())

    def _entries(self) -> Iterator[Descriptor]:
        tags: dict[Digest, list[str]] = {}
        for tag, digest in self.tags.items():
            tags.setdefault(digest, []).append(tag)
        for digest, descriptor in self.manifests.items():
            for tag in sorted(tags.get(digest, ())):
                yield replace(descriptor, annotations={**descriptor.annotations, TAG_ANNOTATION: tag})
            if digest not in tags:
                yield descriptor


def parse_index(raw: bytes, what: str) -> RepositoryIndex:
    """Read an ``index.json``, of this project or of any other program that keeps image layouts.

    An entry whose name is not a tag (other programs write whole references there) counts as untagged.

    Raises:
        MalformedStateError: not an image index.
    """
    manifests: dict[Digest, Descriptor] = {}
    tags: dict[str, Digest] = {}
    for entry in parse_manifest(raw, media_types.OCI_INDEX, what).manifests:
        annotations = dict(entry.annotations)
        tag = _tag(annotations.pop(TAG_ANNOTATION, ""))
        manifests[entry.digest] = replace(entry, annotations=annotations)
        if tag:
            tags[tag] = entry.digest
    return RepositoryIndex(manifests, tags)


def _tag(name: str) -> str:
    try:
        return check_tag(name)
    except InvalidInputError:
        return ""
