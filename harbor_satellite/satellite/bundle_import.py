"""Following the decision in a bundle: the bundle takes the source's place, and all else is as in any replication."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, cast

from harbor_satellite.errors import BundleError, InvalidInputError, RemoteError
from harbor_satellite.oci.platform import Platform
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.bundle_registry import BundleRegistry
from harbor_satellite.registry.state_pull import pull_state
from harbor_satellite.satellite.bundle_names import BUNDLE_STATE_REPOSITORY, IS_INCREMENTAL, PLATFORMS, STATE
from harbor_satellite.satellite.site_contents import read_site
from harbor_satellite.state.satellite_state import parse_satellite_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import BlobStream, ManifestContent, Registry
    from harbor_satellite.registry.cosign import RegistryAccess
    from harbor_satellite.satellite.connections import Connections

_LOG = logging.getLogger(__name__)
_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class CarriedDecision:
    """The satellite state that a bundle carries."""

    state: str
    """Its reference, as for ``edge sync``."""
    reference: Reference
    satellite: str
    """Whose it is, by its own word; empty: a state of the original, or one put together from group states."""

    @property
    def is_own(self) -> bool:
        """Whether the centre made it. Its content says so, not the bundle: trust hangs on it."""
        return bool(self.satellite) or self.reference.repository != BUNDLE_STATE_REPOSITORY

    def check_satellite(self, name: str, registered: str) -> None:
        """Check that the decision is for this site.

        Args:
            name: of the satellite that this site was registered as; empty: unknown.
            registered: reference of the satellite state that it was registered with.

        Raises:
            InvalidInputError: it is for another satellite.
        """
        is_same_place = Reference.parse(registered).repository == self.reference.repository
        is_same_name = not name or not self.satellite or name == self.satellite
        if not is_same_place or not is_same_name:
            whose = self.satellite or str(self.reference)
            raise InvalidInputError(f"the bundle was made for {whose}; this site follows {registered}")


class BundleSource(BundleRegistry):
    """A bundle as the source of a replication.

    A bundle made for a receipt leaves out what the site holds in any repository: such a blob is taken from there.

    Args:
        path: the bundle, or the first of its parts.
        site: the local registry.
    """

    def __init__(self, path: Path, site: Registry) -> None:
        super().__init__(path)
        self._site = site
        self._looking = threading.Lock()
        self._at_site: dict[Digest, tuple[str, int]] | None = None

    def manifest_get(self, repository: str, reference: str) -> ManifestContent:
        """Return a manifest's exact bytes, verified; the message says what it means if it is not there."""
        try:
            return super().manifest_get(repository, reference)
        except RemoteError as error:
            raise self._explained(error) from error

    def blob_head(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None if neither the bundle nor the site has it."""
        size = super().blob_head(repository, digest)
        if size is None and (found := self._find(digest)):
            return found[1]
        return size

    @contextmanager
    def blob_get(self, repository: str, digest: Digest, offset: int = 0) -> Iterator[BlobStream]:
        """Open a blob's bytes, from the bundle or from another repository of the site."""
        if super().blob_head(repository, digest) is not None:
            with super().blob_get(repository, digest, offset) as stream:
                yield stream
            return
        found = self._find(digest)
        if found is None:
            raise self._explained(self._absent(f"blob {repository}@{digest}"))
        with self._site.blob_get(found[0], digest, offset) as local:
            yield local

    def _find(self, digest: Digest) -> tuple[str, int] | None:
        with self._looking:
            if self._at_site is None:
                _LOG.info("not in the bundle, looking at the site: digest=%s", digest)
                self._at_site = read_site(self._site).blobs
            return self._at_site.get(digest)

    def _explained(self, error: RemoteError) -> RemoteError:
        if error.status != _NOT_FOUND or self.annotations.get(IS_INCREMENTAL) != "true":
            return error
        why = "the site held it when its receipt was made, and does not any more: make a bundle for a new receipt"
        return RemoteError(f"{error}; {why}", status=error.status)


class BundleConnections:
    """What a replication needs of ``Connections``: whatever registry a state names, the bundle answers."""

    def __init__(self, path: Path, target: Registry, local_access: RegistryAccess | None = None) -> None:
        """Open the bundle.

        Args:
            path: the bundle, or the first of its parts.
            target: the local registry; closed by whoever opened it.
            local_access: how another program reaches the local registry; None: it cannot.

        Raises:
            InvalidInputError: there is no such file.
            BundleError: it is no bundle, or lacks a part; the message names it.
        """
        self.target = target
        self.local_access = local_access
        self.bundle = BundleSource(path, target)

    def source(self, url: str) -> BundleSource:  # noqa: ARG002
        """Return the bundle."""
        return self.bundle

    @property
    def requests(self) -> int:
        """Requests to sources: none."""
        return 0

    @property
    def bytes_read(self) -> int:
        """Bytes of content read from the bundle so far."""
        return self.bundle.bytes_read

    def check(self, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        """Hold every part against its sum, before anything is done with it.

        Raises:
            BundleError: one is damaged, or is another one's; the message names it.
        """
        self.bundle.check(on_bytes)

    def as_connections(self) -> Connections:
        """Return this under the type that replications are written for."""
        return cast("Connections", self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bundle.close()

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms that it was made for; empty: all."""
        given = self.bundle.annotations.get(PLATFORMS, "")
        try:
            return tuple(Platform.parse(one) for one in given.split(",") if one)
        except InvalidInputError as error:
            raise BundleError(f"{self.bundle.name} was made for odd platforms: {error}") from error

    def decision(self) -> CarriedDecision:
        """Read which satellite state is to be followed.

        Raises:
            BundleError: it names none.
            RemoteError: it does not hold the one that it names.
            UntrustedDataError: that one is damaged or malformed.
        """
        given = self.bundle.annotations.get(STATE, "")
        try:
            reference = Reference.parse(given)
        except InvalidInputError as error:
            raise BundleError(f"{self.bundle.name} names no state to follow: {error}") from error
        pulled = pull_state(self.bundle, reference.repository, reference.target)
        state = parse_satellite_state(pulled.raw, None, f"{reference} in {self.bundle.name}")
        return CarriedDecision(given, reference, state.satellite or "")
