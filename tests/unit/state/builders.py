"""Short ways to write states down in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.artifact import StateArtifact, StateEntry
from harbor_satellite.state.names import GroupName

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = "https://harbor.example"
D1, D2, D3 = (Digest("sha256", number * 64) for number in "123")


def entry(
    repository: str,
    digest: Digest,
    *tags: str,
    deleted: bool = False,
    referrers: Sequence[Digest] | None = (),
    size: int | None = None,
) -> StateEntry:
    """Write one entry; without tags it is held by digest alone."""
    known = None if referrers is None else tuple(referrers)
    return StateEntry(repository, tags, digest, deleted=deleted, referrers=known, size=size)


def group(name: str, *entries: StateEntry, registry: str = SOURCE, generation: int = 1) -> StateArtifact:
    """Write a group's state."""
    return StateArtifact(GroupName(name), registry, entries, generation)
