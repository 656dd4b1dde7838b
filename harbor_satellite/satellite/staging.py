"""Bringing one artifact to the site by digest, and checking who signed it; no tag moves here."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, SignatureError
from harbor_satellite.oci.descriptor import Manifest, parse_manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.outcome import ImageOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harbor_satellite.registry.api import Registry
    from harbor_satellite.registry.copy import Copier
    from harbor_satellite.registry.cosign import Cosign, RegistryAccess
    from harbor_satellite.state.desired import LocalTag
    from harbor_satellite.state.plan import Copy

_LOG = logging.getLogger(__name__)
_LOOK_WORKERS: Final = 8


def stage(copier: Copier, copy: Copy) -> ImageOutcome:
    """Bring one artifact to the site by digest, moving no tag yet.

    Raises:
        HarborSatelliteError: why it could not be brought; nothing that was here is touched.
    """
    started = time.monotonic()
    result = copier.stage(copy.repository, copy.digest, copy.referrers)
    seconds = time.monotonic() - started
    _LOG.info(
        "copied reference=%s digest=%s bytes=%d blobs=%d mounted=%d seconds=%.2f",
        copy,
        copy.digest,
        result.bytes_copied,
        result.blobs_copied,
        result.blobs_mounted,
        seconds,
    )
    return ImageOutcome(
        "copied",
        str(copy),
        str(copy.digest),
        copy.reason,
        result.bytes_copied,
        seconds,
        rule=copy.rule,
        groups=copy.groups,
    )


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks signatures against what is at the site already: no link is needed."""

    cosign: Cosign
    access: RegistryAccess | None
    """How cosign reaches the local registry; None: it cannot."""

    def verify(self, repository: str, digest: Digest, demands: Iterable[tuple[str, ...]]) -> None:
        """Check an artifact at the local registry: of each set of keys, one must have signed it.

        Raises:
            SignatureError: a demand is not met, or the check could not be made.
        """
        for keys in demands:
            if self.access is None:
                raise SignatureError(f"{repository}@{digest}: signatures cannot be checked at this kind of registry")
            self.cosign.verify(self.access, repository, digest, keys)


def demands_of(required_keys: tuple[tuple[str, ...], ...], image_keys: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Join what the groups ask for with what the site asks for itself."""
    return (*required_keys, image_keys) if image_keys else required_keys


def demands_mark(digest: Digest, demands: tuple[tuple[str, ...], ...]) -> str:
    """Return one word for "this content under these demands", to remember what was checked."""
    return str(Digest.of(f"{digest} {sorted(demands)}".encode()))


def site_blobs(target: Registry, owned: Mapping[LocalTag, frozenset[Digest]]) -> dict[Digest, str]:
    """Find a repository of the local registry for each blob that this satellite brought, by reading its manifests."""
    repositories: dict[Digest, str] = {}
    level = {(name.repository, digest) for name, digests in owned.items() for digest in digests}
    seen: set[tuple[str, Digest]] = set()
    with ThreadPoolExecutor(_LOOK_WORKERS, "look") as pool:
        while level:
            seen |= level
            items = sorted(level)
            manifests = pool.map(lambda item: _peek(target, *item), items)
            level = set()
            for (repository, _), manifest in zip(items, manifests, strict=True):
                level |= {(repository, child.digest) for child in manifest.manifests}
                for blob in manifest.blobs:
                    repositories.setdefault(blob.digest, repository)
            level -= seen
    return repositories


def _peek(target: Registry, repository: str, digest: Digest) -> Manifest:
    try:
        content = target.manifest_get(repository, str(digest))
        return parse_manifest(content.raw, content.media_type, f"{repository}@{digest}")
    except HarborSatelliteError:
        return Manifest("")  # only a hint is lost: what is not known here is copied
