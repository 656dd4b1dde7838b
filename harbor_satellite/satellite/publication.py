"""The last steps of a replication: publish tags, prune, keep the record.

Nothing is ever half-published: a tag moves only after all its content is here, and what this satellite puts
under a name is on record before the name is touched.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, RemoteError
from harbor_satellite.registry.copy import publish_tags
from harbor_satellite.satellite.outcome import ImageOutcome, failed_outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.desired import LocalTag
    from harbor_satellite.state.plan import Copy, Deletion, ReplicationPlan

_LOG = logging.getLogger(__name__)
_NO_TAG_DELETION: Final = frozenset({400, 405, 501})
"""How a registry answers that deletes manifests by digest only (distribution-spec, "Deleting tags")."""


def publish_and_prune(
    target: Registry, store: SatelliteStore, plan: ReplicationPlan, staged: Mapping[Copy, ImageOutcome]
) -> tuple[ImageOutcome, ...]:
    """Move tags to what is staged, then take away what no group wants; one pass, deletions last.

    Each name is recorded as this satellite's own *before* its tag moves, so that nothing it put there is
    ever forgotten, whenever it is killed.

    Args:
        target: the local registry.
        store: keeps the record.
        plan: what was decided.
        staged: outcome of each copy of the plan; only those that were copied are published.

    Returns:
        What became of every image of the plan.
    """
    ready = [copy for copy in plan.copy if staged[copy].action == "copied"]
    _record(store, {name: copy.digest for copy in ready for name in copy.names}, is_settled=False)
    outcomes = {copy: staged[copy] for copy in plan.copy}
    for copy in ready:
        pin = (pin_tag(copy.digest),) if copy.by_digest else ()
        try:
            publish_tags(target, copy.repository, copy.digest, (*copy.tags, *pin))
        except HarborSatelliteError as error:
            outcomes[copy] = failed_outcome(str(copy), copy.digest, error)
    published = {name: copy.digest for copy in ready if outcomes[copy].action == "copied" for name in copy.names}
    _record(store, published, is_settled=True)
    pruned = {deletion.name: _delete(target, deletion) for deletion in plan.delete}
    _forget(store, {name for name, outcome in pruned.items() if outcome.action != "failed"} | set(plan.forget))
    kept = (ImageOutcome("kept", str(item.name), str(item.digest), item.reason) for item in plan.keep)
    refused = (ImageOutcome("failed", str(item.name), "", item.reason) for item in plan.refuse)
    return (*outcomes.values(), *kept, *pruned.values(), *refused)


def pin_tag(digest: Digest) -> str:
    """Return the tag that keeps an artifact without one from a registry's garbage collection."""
    return f"satellite-pin-{digest.hex[:40]}"


def _delete(target: Registry, deletion: Deletion) -> ImageOutcome:
    name, digest = deletion.name, deletion.digest
    tag = pin_tag(digest) if name.is_digest else name.tag
    try:
        here = target.manifest_head(name.repository, tag)
        if here is not None and here.digest != digest:
            return ImageOutcome("kept", str(name), str(here.digest), "changed at the site: not ours to delete")
        if here is not None:
            _delete_tag(target, name.repository, tag, digest)
        if name.is_digest and not _is_tagged(target, name.repository, digest):
            target.manifest_delete(name.repository, str(digest))
    except HarborSatelliteError as error:
        return failed_outcome(str(name), digest, error)
    _LOG.info("deleted reference=%s digest=%s reason=%s", name, digest, deletion.reason)
    return ImageOutcome("deleted", str(name), str(digest), deletion.reason)


def _delete_tag(target: Registry, repository: str, tag: str, digest: Digest) -> None:
    """Delete a tag; where the registry cannot, its manifest, unless another tag needs it."""
    try:
        target.manifest_delete(repository, tag)
    except RemoteError as error:
        if error.status not in _NO_TAG_DELETION or _is_tagged(target, repository, digest, besides=tag):
            raise
        target.manifest_delete(repository, str(digest))


def _is_tagged(target: Registry, repository: str, digest: Digest, besides: str = "") -> bool:
    """Tell whether any (other) tag of the repository names the digest."""
    for tag in target.tag_list(repository):
        found = target.manifest_head(repository, tag) if tag != besides else None
        if found is not None and found.digest == digest:
            return True
    return False


def _record(store: SatelliteStore, names: Mapping[LocalTag, Digest], *, is_settled: bool) -> None:
    """Note what stands, or is about to stand, under each name; until it is settled, the site is not converged."""
    if not names:
        return
    applied = store.applied()
    owned = dict(applied.owned)
    for name, digest in names.items():
        owned[name] = frozenset({digest}) if is_settled else owned.get(name, frozenset()) | {digest}
    store.save_applied(replace(applied, owned=owned, is_converged=applied.is_converged and is_settled))


def _forget(store: SatelliteStore, names: Collection[LocalTag]) -> None:
    applied = store.applied()
    owned = {name: digests for name, digests in applied.owned.items() if name not in names}
    if len(owned) < len(applied.owned):
        store.save_applied(replace(applied, owned=owned))
