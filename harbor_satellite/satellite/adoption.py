"""Taking over what another registry at the site holds: all of it is copied locally, not a byte from the source.

Digests stay, and so do tags, referrers and the pins of the generation before. It may be killed anywhere and repeated:
what is there already is left as it is. What is damaged in the registry that is left is named, and comes with the next
run from the source. What must not live here: when to do this, and which registry serves meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, RemoteError, UntrustedDataError
from harbor_satellite.registry.copy import Copier, KnownBlobs, is_complete, publish_tags
from harbor_satellite.satellite.adoption_source import LeftRegistry, LeftRegistryError
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.inventory import BROKEN, roots_of
from harbor_satellite.satellite.pins import pin_tag, tag_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.adoption_journal import AdoptionJournal
    from harbor_satellite.satellite.disk import DiskGuard
    from harbor_satellite.satellite.store import SatelliteStore

_LOG = logging.getLogger(__name__)
_NOT_FOUND: Final = 404
_LOST: Final = frozenset({_NOT_FOUND, BROKEN})
"""How the registry that is left answers for what it has lost: that will not be better next time."""
_REFUSED: Final = frozenset({400, _NOT_FOUND, 413, 415})
"""How the one that takes over answers for an image that it does not take, whatever else it takes."""


@dataclass(frozen=True, slots=True)
class AdoptionOptions:
    """How to take over."""

    is_whole: bool = False
    """Take all that the other one holds, whoever put it there: it is one that the agent runs. Else only what the site
    itself put there: somebody else's registry may be large."""
    is_shared: bool = False
    """The one that takes over is somebody else's, too: what its tags name already stays."""
    platforms: tuple[Platform, ...] = ()
    """The site's own choice of children of indexes."""
    workers: int = 4
    """Images on their way at once."""
    disk: DiskGuard | None = None
    """Of the one that takes over, where the site knows it: what has no room is found out before it is copied."""
    journal: AdoptionJournal | None = None
    """Of this move: what earlier attempts have tagged and the site has deleted since does not come back by it."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What taking over came to."""

    images: int = 0
    bytes_copied: int = 0
    left_behind: tuple[tuple[str, str], ...] = ()
    """What could not be taken over, and why."""


@dataclass
class _Image:
    """One manifest or index to take over."""

    repository: str
    digest: Digest
    tags: set[str] = field(default_factory=set)
    """Which the registry that is left has on it."""
    platforms: set[Platform] | None = None
    """Of the children that the site brought; None: somebody else's image. Empty: all."""

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"


def adopt(old: Registry, new: Registry, store: SatelliteStore, options: AdoptionOptions) -> Adopted:
    """Copy what the site owns or pins, with its referrers, from one registry of the site to another.

    The caller holds the store's lock. A tag moves when its image is there, whole.

    Args:
        old: the registry that is left; only read.
        new: the one that takes over.
        store: the site's record; only read.
        options: how to go about it.

    Raises:
        RemoteError: one of the two cannot be reached, or refuses altogether (``LeftRegistryError``: the old one).
        StorageError: the disk has no room.
    """
    source = LeftRegistry(old)
    images = _images(source, store, options)
    known = KnownBlobs()

    def take(image: _Image) -> int | tuple[str, str]:
        try:
            return _take(source, new, image, known, options)
        except HarborSatelliteError as error:
            if not _is_about_one(error):
                raise
            _LOG.warning("not taken over reference=%s reason=%s", image, error)
            return str(image), str(error)

    with ThreadPoolExecutor(options.workers, "adopt") as pool:
        taking = [pool.submit(take, image) for image in images]
        try:
            came = [future.result() for future in taking]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if options.journal:
        _take_back(new, options.journal, {(image.repository, tag) for image in images for tag in image.tags})
    sizes = [one for one in came if isinstance(one, int)]
    return Adopted(len(sizes), sum(sizes), tuple(one for one in came if not isinstance(one, int)))


def look_again(store: SatelliteStore) -> None:
    """Have the next run look at everything: the local registry is another one. The caller holds the store's lock."""
    applied = store.applied()
    if applied.state_digest is not None:
        store.save_applied(replace(applied, choices="", is_converged=False, next_try_at=None))


def _take(source: LeftRegistry, new: Registry, image: _Image, known: KnownBlobs, options: AdoptionOptions) -> int:
    platforms = tuple(sorted(image.platforms or ()))
    copier = Copier(source, new, known, platforms, reserve=partial(_room, options.disk))
    result = copier.stage(image.repository, image.digest, None)
    if not is_complete(new, image.repository, image.digest, platforms):  # a registry's 201 is no proof
        raise UntrustedDataError(f"{new.name}/{image} is not whole after it was copied")
    tags = tuple(sorted(tag for tag in image.tags if not options.is_shared or _is_free(new, image, tag)))
    if options.journal:
        options.journal.note(image.repository, str(image.digest), tags)
    publish_tags(new, image.repository, image.digest, tags)
    return result.bytes_copied


def _take_back(new: Registry, journal: AdoptionJournal, names: set[tuple[str, str]]) -> None:
    """Remove tags of an earlier attempt that are no more in the registry that is left."""
    for (repository, tag), digests in journal.noted().items():
        if (repository, tag) in names:
            continue
        found = new.manifest_head(repository, tag)
        if found is not None and str(found.digest) in digests:
            new.manifest_delete(repository, tag)
            _LOG.info("taken back, deleted meanwhile reference=%s:%s", repository, tag)


def check_answers(old: Registry, store: SatelliteStore) -> None:
    """Do nothing if the registry that is left answers at all.

    Raises:
        LeftRegistryError: it does not, or refuses.
    """
    source, root = LeftRegistry(old), next(iter(roots_of(store)), None)
    try:
        if root:
            source.manifest_head(root.name.repository, str(root.digest))
        else:
            source.repository_list()
    except (LeftRegistryError, UntrustedDataError) as error:
        if not _is_about_one(error):
            raise


@contextlib.contextmanager
def _room(disk: DiskGuard | None, size_bytes: int) -> Iterator[None]:
    with disk.reserve(size_bytes) if disk else contextlib.nullcontext():
        yield


def _is_free(new: Registry, image: _Image, tag: str) -> bool:
    found = new.manifest_head(image.repository, tag)
    if found is None:
        return True
    if found.digest != image.digest:
        _LOG.warning("tag stays theirs reference=%s/%s:%s", new.name, image.repository, tag)
    return False


def _is_about_one(error: HarborSatelliteError) -> bool:
    """Tell what is wrong with one image, and stays so, from what is wrong with a registry or the disk."""
    if isinstance(error, LeftRegistryError):
        return error.status in _LOST
    if isinstance(error, RemoteError):
        return error.status in _REFUSED
    return isinstance(error, UntrustedDataError)


def _images(source: LeftRegistry, store: SatelliteStore, options: AdoptionOptions) -> list[_Image]:
    """List what to take over, each content once for each repository."""
    images: dict[tuple[str, Digest], _Image] = {}
    asked: defaultdict[str, set[str]] = defaultdict(set)
    for root in roots_of(store, options.platforms):
        repository, digest = root.name.repository, root.digest
        image = images.setdefault((repository, digest), _Image(repository, digest))
        if image.platforms is None:
            image.platforms = set(root.platforms)
        elif image.platforms and root.platforms:
            image.platforms |= set(root.platforms)
        else:
            image.platforms = set()  # some name of it has all children
        asked[repository] |= {tag_of(root.name), pin_tag(digest)}
    for repository, digest in load_generations(store).pins:
        asked[repository].add(pin_tag(digest))
    if options.is_whole:
        for repository in source.repository_list():
            asked[repository] |= set(source.tag_list(repository))
    _look_up(source, images, asked, options.workers)
    return [images[key] for key in sorted(images)]


def _look_up(
    source: LeftRegistry, images: dict[tuple[str, Digest], _Image], asked: dict[str, set[str]], workers: int
) -> None:
    """Add to the images the tags that name them now: what the record says may have been moved since."""
    names = [(repository, tag) for repository in sorted(asked) for tag in sorted(asked[repository])]

    def digest_of(name: tuple[str, str]) -> Digest | None:
        try:
            found = source.manifest_head(*name)
        except (LeftRegistryError, UntrustedDataError) as error:
            if not _is_about_one(error):
                raise
            _LOG.warning("tag not taken over reference=%s:%s reason=%s", *name, error)
            return None
        return found.digest if found else None

    with ThreadPoolExecutor(workers, "look") as pool:
        for (repository, tag), digest in zip(names, pool.map(digest_of, names), strict=True):
            if digest is not None:
                images.setdefault((repository, digest), _Image(repository, digest)).tags.add(tag)
