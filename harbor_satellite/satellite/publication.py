"""The last steps of a replication: pin what stood before, publish tags, prune, keep the record.

Nothing is ever half-published: a tag moves only after all its content is here, and what this satellite puts
under a name is on record before the name is touched. What stood before keeps a tag of ours until the generation
after next, so that a pull that is under way, and going back, find everything.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.registry.copy import publish_tags
from harbor_satellite.satellite.generations import SiteGeneration, Standing, load_generations, save_generations
from harbor_satellite.satellite.outcome import ImageOutcome, failed_outcome
from harbor_satellite.satellite.pins import delete_tag, pin_tag, put_pins
from harbor_satellite.satellite.standing import close_generation
from harbor_satellite.state.plan import Rule
from harbor_satellite.state.readiness import Readiness, decide_readiness

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.desired import LocalTag
    from harbor_satellite.state.names import GroupName
    from harbor_satellite.state.plan import Copy, Deletion, ReplicationPlan
    from harbor_satellite.state.policy import GroupPolicy
    from harbor_satellite.state.wire import AppliedGroup

_LOG = logging.getLogger(__name__)
_TAG_WORKERS: Final = 8
"""Tags on the move at once: the pass is to be short."""


@dataclass(frozen=True, slots=True)
class Followed:
    """Which decision of the centre is being published."""

    state_digest: Digest
    groups: tuple[AppliedGroup, ...] = ()
    policies: Mapping[GroupName, GroupPolicy] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes at one site."""

    target: Registry
    store: SatelliteStore

    def publish_and_prune(
        self,
        plan: ReplicationPlan,
        staged: Mapping[Copy, ImageOutcome],
        followed: Followed,
        now: datetime,
    ) -> tuple[ImageOutcome, ...]:
        """Move tags to what is staged, then take away what no group wants; one pass, deletions last.

        Each name is recorded as this satellite's own *before* its tag moves, so that nothing it put there is
        ever forgotten, whenever it is killed.

        Args:
            plan: what was decided.
            staged: outcome of each copy of the plan; only those that were copied are published.
            followed: the decision that the plan serves.
            now: this moment.

        Returns:
            What became of every image of the plan.
        """
        readiness = self._readiness(plan, staged, followed)
        deletions = self._deletions(plan, staged)
        self._open_generation(plan, readiness, deletions, followed, now)
        moved = self._move_tags(readiness.publish, staged)
        pruned = self._prune(plan, deletions)
        close_generation(self.target, self.store)
        held = {
            copy: replace(staged[copy], action="staged", rule=Rule.WAITING, reason=reason)
            for copy, reason in readiness.hold.items()
        }
        outcomes = {**staged, **held, **moved}
        return (*(outcomes[copy] for copy in plan.copy), *untouched(plan), *pruned)

    def publish_signatures(self, copies: Collection[Copy]) -> dict[Copy, HarborSatelliteError]:
        """Give signatures of older cosign their tags, by which they are found: that changes nothing that anybody runs.

        Returns:
            Those that could not get theirs, and why.
        """
        self._record({name: copy.digest for copy in copies for name in copy.names}, is_settled=False)
        errors = {}
        for copy in copies:
            try:
                publish_tags(self.target, copy.repository, copy.digest, copy.tags)
            except HarborSatelliteError as error:
                errors[copy] = error
        return errors

    def _readiness(self, plan: ReplicationPlan, staged: Mapping[Copy, ImageOutcome], followed: Followed) -> Readiness:
        quarantine = {(item.repository, item.digest): item for item in self.store.applied().quarantine}
        set_aside = [
            copy
            for copy in plan.copy
            if (item := quarantine.get((copy.repository, copy.digest))) is not None and item.is_set_aside
        ]
        copied = [copy for copy in plan.copy if staged[copy].action == "copied"]
        return decide_readiness(plan.copy, frozenset(copied), frozenset(set_aside), followed.policies)

    def _deletions(self, plan: ReplicationPlan, staged: Mapping[Copy, ImageOutcome]) -> frozenset[Deletion]:
        """Return what may go now: not what a group took out in a generation that it is not on yet."""
        current = load_generations(self.store).current
        standing = current.names if current else {}
        lacking = (*(copy for copy in plan.copy if staged[copy].action != "copied"), *(copy for copy, _ in plan.wait))
        unfinished = {group for copy in lacking for group in copy.groups}
        return frozenset(
            deletion
            for deletion in plan.delete
            if not (name := standing.get(deletion.name)) or not any(group in unfinished for group in name.groups)
        )

    def _open_generation(
        self,
        plan: ReplicationPlan,
        readiness: Readiness,
        deletions: frozenset[Deletion],
        followed: Followed,
        now: datetime,
    ) -> None:
        """Put on record what will stand, and give what stood before its pins: all before any tag moves."""
        before = load_generations(self.store)
        sparse = self.store.applied().platforms
        names = {
            item.name: Standing(item.digest, item.groups, sparse.get(item.name, ()))
            for item in plan.keep
            if item.rule is Rule.WANTED
        }
        names |= {
            name: Standing(copy.digest, copy.groups, copy.wish.platforms)
            for copy in readiness.publish
            for name in copy.names
        }
        # What failed or waits stays as it stood.
        publish = frozenset(readiness.publish)
        undone = {name for copy in plan.copy if copy not in publish for name in copy.names}
        undone |= {name for copy, _ in plan.wait for name in copy.names} | {item.name for item in plan.refuse}
        undone |= {deletion.name for deletion in plan.delete if deletion not in deletions}
        stood = before.current.names if before.current else {}
        names |= {name: stood[name] for name in undone if name in stood}
        generation = SiteGeneration(followed.state_digest, now, names, followed.groups)
        after = before.published(generation, is_waiting=bool(undone))
        save_generations(self.store, replace(after, pins=before.pins | after.pins_needed(), is_open=True))
        put_pins(self.target, after.pins_needed())
        owned = {name: copy.digest for copy in readiness.publish for name in copy.names}
        self._record(owned, is_settled=False)

    def _move_tags(self, copies: tuple[Copy, ...], staged: Mapping[Copy, ImageOutcome]) -> dict[Copy, ImageOutcome]:
        def move(copy: Copy) -> ImageOutcome:
            pin = (pin_tag(copy.digest),) if copy.by_digest else ()
            try:
                publish_tags(self.target, copy.repository, copy.digest, (*copy.tags, *pin))
            except HarborSatelliteError as error:
                return failed_outcome(str(copy), copy.digest, error, copy.groups)
            return staged[copy]

        with ThreadPoolExecutor(_TAG_WORKERS, "tag") as pool:
            outcomes = dict(zip(copies, pool.map(move, copies), strict=True))
        published = {
            name: copy.digest for copy, outcome in outcomes.items() if outcome.action == "copied" for name in copy.names
        }
        self._record(published, is_settled=True)
        return outcomes

    def _prune(self, plan: ReplicationPlan, deletions: frozenset[Deletion]) -> list[ImageOutcome]:
        pruned = []
        pins = load_generations(self.store).pins_kept()
        for deletion in plan.delete:
            is_pinned = (deletion.name.repository, deletion.digest) in pins
            if deletion in deletions and deletion.name.is_digest and is_pinned:
                pruned.append(_deleted(deletion))  # what held it by digest is the pin of the previous generation now
            elif deletion in deletions:
                pruned.append(delete_name(self.target, deletion, is_pinned=is_pinned))
            else:
                reason = "until its group is complete"
                pruned.append(_kept(deletion, deletion.digest, reason, Rule.WAITING))
        gone = {
            deletion.name
            for deletion, outcome in zip(plan.delete, pruned, strict=True)
            if outcome.action == "deleted" or outcome.rule is Rule.FOREIGN
        }
        self._forget(gone | set(plan.forget))
        return pruned

    def _record(self, names: Mapping[LocalTag, Digest], *, is_settled: bool) -> None:
        """Note what stands, or is about to stand, under each name; until it is settled, the site is not converged."""
        if not names:
            return
        applied = self.store.applied()
        owned = dict(applied.owned)
        for name, digest in names.items():
            before = frozenset() if is_settled else owned.get(name, frozenset())
            owned[name] = before | {digest}
        self.store.save_applied(replace(applied, owned=owned, is_converged=applied.is_converged and is_settled))

    def _forget(self, names: Collection[LocalTag]) -> None:
        applied = self.store.applied()
        owned = {name: digests for name, digests in applied.owned.items() if name not in names}
        if len(owned) < len(applied.owned):
            self.store.save_applied(replace(applied, owned=owned))


def untouched(plan: ReplicationPlan) -> tuple[ImageOutcome, ...]:
    """Describe the images of a plan that nothing is done about: kept, disputed, in quarantine."""
    kept = (
        ImageOutcome("kept", str(item.name), str(item.digest), item.reason, rule=item.rule, groups=item.groups)
        for item in plan.keep
    )
    refused = (
        ImageOutcome("failed", str(item.name), "", item.reason, rule=Rule.DISPUTED, groups=item.groups)
        for item in plan.refuse
    )
    waiting = (
        ImageOutcome(
            "quarantined",
            str(copy),
            str(copy.digest),
            f"{item.reason}; failed {item.failures} times, tried again at {item.retry_at:%Y-%m-%d %H:%M} UTC",
            rule=Rule.QUARANTINE,
            groups=copy.groups,
        )
        for copy, item in plan.wait
    )
    return (*kept, *refused, *waiting)


def delete_name(target: Registry, deletion: Deletion, *, is_pinned: bool) -> ImageOutcome:
    """Take one name of ours away, if it still is what we put there.

    Args:
        target: the local registry.
        deletion: the name, and what must still be there.
        is_pinned: whether our own pin of that content is still needed.
    """
    name, digest = deletion.name, deletion.digest
    tag = pin_tag(digest) if name.is_digest else name.tag
    try:
        here = target.manifest_head(name.repository, tag)
        if here is not None and here.digest != digest:
            return _kept(deletion, here.digest, "changed at the site: not ours to delete", Rule.FOREIGN)
        if here is not None and not delete_tag(target, name.repository, tag, digest, is_pinned=is_pinned):
            reason = "this registry deletes only whole manifests: it goes with the previous generation"
            return _kept(deletion, digest, reason, Rule.WAITING)
    except HarborSatelliteError as error:
        return failed_outcome(str(name), digest, error)
    _LOG.info("deleted reference=%s digest=%s reason=%s", name, digest, deletion.reason)
    return _deleted(deletion)


def _deleted(deletion: Deletion) -> ImageOutcome:
    return ImageOutcome("deleted", str(deletion.name), str(deletion.digest), deletion.reason, rule=Rule.UNWANTED)


def _kept(deletion: Deletion, digest: Digest, reason: str, rule: Rule) -> ImageOutcome:
    return ImageOutcome("kept", str(deletion.name), str(digest), reason, rule=rule)
