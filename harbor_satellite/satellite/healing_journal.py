"""What a healing is about to take away, on disk before it does: so that whoever comes next can put it back.

Replication puts back what its state asks for, but names that others made at the site are on record nowhere else.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.satellite.store import SatelliteStore

_FILE: Final = "healing.json"


@dataclass(frozen=True, slots=True)
class HeldManifest:
    """One manifest to put back, with every tag that named it."""

    repository: str
    digest: Digest
    content: ManifestContent
    tags: tuple[str, ...] = ()
    own_tags: tuple[str, ...] = ()
    """Those of the tags that the satellite itself put there: a later replication may have taken them away."""


@dataclass(frozen=True, slots=True)
class Journal:
    """One healing under way."""

    digest: Digest
    """Of the damaged content."""
    blob_size: int | None
    """Bytes of the damaged blob; None: it is a manifest, the first of those held."""
    repositories: tuple[str, ...]
    """Where the content is to be."""
    manifests: tuple[HeldManifest, ...]
    """In the order in which they can be put back: children before their indexes."""


def load_journal(store: SatelliteStore) -> Journal | None:
    """Return the healing that was not finished; None if there is none.

    Raises:
        StorageError: the file is damaged.
    """
    return store.parsed(_FILE, _journal)


def _journal(document: Mapping[str, Any] | None) -> Journal | None:
    if document is None:
        return None
    return Journal(
        digest=Digest.parse(document["digest"]),
        blob_size=None if document["blob_size"] is None else int(document["blob_size"]),
        repositories=tuple(map(str, document["repositories"])),
        manifests=tuple(_held(item) for item in document["manifests"]),
    )


def save_journal(store: SatelliteStore, journal: Journal) -> None:
    """Keep a healing before its first deletion.

    Raises:
        StorageError: the disk refuses; then nothing may be deleted.
    """
    document = {
        "digest": str(journal.digest),
        "blob_size": journal.blob_size,
        "repositories": list(journal.repositories),
        "manifests": [
            {
                "repository": item.repository,
                "digest": str(item.digest),
                "media_type": item.content.media_type,
                "raw": base64.b64encode(item.content.raw).decode(),
                "tags": list(item.tags),
                "own_tags": list(item.own_tags),
            }
            for item in journal.manifests
        ],
    }
    store.write_document(_FILE, document)


def drop_journal(store: SatelliteStore) -> None:
    """Forget a healing that is finished."""
    (store.folder / _FILE).unlink(missing_ok=True)


def _held(item: Mapping[str, Any]) -> HeldManifest:
    digest, raw = Digest.parse(item["digest"]), base64.b64decode(item["raw"], validate=True)
    digest.verify(raw, "the healing journal")
    content = ManifestContent(str(item["media_type"]), raw)
    tags, own_tags = tuple(map(str, item["tags"])), tuple(map(str, item["own_tags"]))
    return HeldManifest(str(item["repository"]), digest, content, tags, own_tags)
