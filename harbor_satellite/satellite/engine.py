"""The engine of a replication: one run's hold on registries, record and limits, and each step of the run.

The flow runs the steps as tasks; ``edge sync``, an import and an agent without Prefect run them as they are.
No step tries twice; each may be repeated.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from harbor_satellite.errors import HarborSatelliteError, PausedError
from harbor_satellite.registry.copy import Copier, KnownBlobs
from harbor_satellite.registry.cosign import Cosign
from harbor_satellite.registry.partials import PartialFolder
from harbor_satellite.satellite.disk import DiskGuard
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.looking import look_around, make_plan
from harbor_satellite.satellite.outcome import ImageOutcome, RunOutcome, failed_outcome
from harbor_satellite.satellite.publication import Followed, Publisher
from harbor_satellite.satellite.record import Record
from harbor_satellite.satellite.replication import (
    FetchedState,
    current_state_digest,
    fetch_generation,
    fetch_satellite_state,
    fetch_state,
    utc_now,
)
from harbor_satellite.satellite.rollback import release
from harbor_satellite.satellite.room import Room
from harbor_satellite.satellite.site_config import SiteConfigKeeper
from harbor_satellite.satellite.staging import Verifier, demands_of, site_blobs, stage
from harbor_satellite.satellite.standing import drop_stale
from harbor_satellite.state.plan import Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.satellite.connections import Connections
    from harbor_satellite.satellite.options import ReplicationOptions, WanLimits
    from harbor_satellite.satellite.replication import Verify
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.satellite.wan import WanGate
    from harbor_satellite.state.artifact import StateArtifact
    from harbor_satellite.state.config import SatelliteConfig
    from harbor_satellite.state.plan import Copy, ReplicationPlan


class Engine:
    """One run at one site. Not a dataclass, so that Prefect passes it on without looking inside.

    Args:
        connections: the run's registries.
        store: the site's record; its lock is held by the caller.
        options: how to go about it.
        gate: counts and bounds what is read from the source; None: nothing crosses a link.
        now: the clock.
        limits_of: the bounds on the link under a config of the centre; None: those of the gate stay.
    """

    def __init__(
        self,
        connections: Connections,
        store: SatelliteStore,
        options: ReplicationOptions,
        gate: WanGate | None = None,
        now: Callable[[], datetime] = utc_now,
        *,
        limits_of: Callable[[SatelliteConfig], WanLimits] | None = None,
    ) -> None:
        self.connections = connections
        self.store = store
        self.options = options
        self.record = Record(store, options)
        self.started = time.monotonic()
        self._gate = gate
        self._config = SiteConfigKeeper(store, gate, limits_of)
        self._now = now
        self._partials = PartialFolder(store.folder / "partial", reserve_bytes=options.disk_reserve_bytes)
        self._disk = DiskGuard(options.storage or store.folder, options.disk_reserve_bytes)
        self._slots = threading.Semaphore(options.blob_workers)
        self._known = KnownBlobs()
        self._verifier = Verifier(Cosign(options.cosign), connections.local_access)
        self._guard = threading.Lock()
        self._staged: dict[Copy, ImageOutcome] = {}
        self._errors: dict[Copy, HarborSatelliteError] = {}
        self._look_at = 0

    def check(self, state_url: str) -> Digest | None:
        """Ask for the current state, one request; None if it is applied already and what it asked for is still here.

        Raises:
            PausedError: nothing may be asked of the source now.
            RemoteError: there is no state, or the source refused or could not be reached.
        """
        try:
            self.check_link()
        except PausedError as paused:
            fetch = partial(fetch_satellite_state, self.connections, state_url, verify=self.state_verifier)
            self._config.hear(paused, partial(current_state_digest, self.connections, state_url), fetch)
            self.check_link()
        current = current_state_digest(self.connections, state_url)
        return None if self._is_settled(current) else current

    def check_link(self) -> None:
        """Do nothing if bytes may come from the source now.

        Raises:
            PausedError: they may not.
        """
        if self._gate:
            self._gate.check()

    def stop(self) -> None:
        """End every read from the source at its next piece; what has arrived is kept."""
        if self._gate:
            self._gate.close()

    def _is_settled(self, current: Digest) -> bool:
        applied, generations = self.store.applied(), load_generations(self.store)
        if generations.held not in {None, current}:
            release(self.store)  # the centre has published another state: that ends what an operator held
        if generations.current is None or current not in {applied.state_digest, generations.held}:
            return False
        if self.options.is_deep or not self.record.is_at_rest(applied, self._now()):
            return False
        standing = {n: d for n, d in generations.current.digests().items() if applied.wanted.get(n) == d}
        is_right, self._look_at = look_around(self.connections.target, standing, applied.look_at)
        return is_right

    def fetch(self, state_url: str) -> FetchedState:
        """Fetch what to follow, verified: the current state, or the one that an operator went back to.

        Raises:
            RemoteError: one of its parts is not there, or the source refused or could not be reached.
            UntrustedDataError: one of them must not be followed.
        """
        generations = load_generations(self.store)
        if generations.held and generations.current:
            current = current_state_digest(self.connections, state_url)
            if current == generations.held:
                return fetch_generation(self.connections, state_url, generations.current)
        applied = self.store.applied()
        fetched = fetch_state(
            self.connections,
            state_url,
            applied.highest(),
            self._now(),
            verify=self.state_verifier,
            accepted=applied.state_digest,
            serial=self._config.known.serial,
        )
        self._config.accept(fetched.state, fetched.digest)
        return fetched

    @property
    def state_verifier(self) -> Verify | None:
        """What checks who signed a state; None: nobody must have."""
        return self._verify_state if self.options.state_keys else None

    def _verify_state(self, url: str, repository: str, digest: Digest) -> None:
        """Bring a state with its signatures to the site, and check it there, as images are."""
        copier = Copier(self.connections.source(url), self.connections.target)
        copier.stage(repository, digest, None)
        self._verifier.verify(repository, digest, (self.options.state_keys,))

    def plan(self, states: Sequence[StateArtifact]) -> ReplicationPlan:
        """Hold the desired images against what the local registry really has, and the plan against the disk.

        Raises:
            StorageError: the disk has no room for what is to come; nothing was brought.
        """
        target, applied = self.connections.target, self.store.applied()
        arrived = self._partials.arrivals()
        self._known = KnownBlobs(lambda: site_blobs(target, applied.owned) | arrived)
        plan = make_plan(target, states, applied, self.options, self._now())
        room = Room(self._disk, target, self._known, self.options.image_workers)
        room.check(plan.copy, self._copier)
        return plan

    def is_staged(self, copy: Copy) -> bool:
        """Whether the copy's content is at the site already; so a repeated task does only what is left."""
        with self._guard:
            return copy in self._staged and self._staged[copy].action == "copied"

    def stage(self, copy: Copy, on_bytes: Callable[[int], None] = lambda _: None) -> ImageOutcome:
        """Bring one artifact to the site by digest; what became of it is noted either way.

        Raises:
            HarborSatelliteError: why it could not be brought; nothing that was here is touched.
        """
        try:
            self.check_link()
            outcome = stage(self._copier(copy, on_bytes), copy)
        except HarborSatelliteError as error:
            self._note(copy, failed_outcome(str(copy), copy.digest, error, copy.groups), error)
            raise
        self._note(copy, outcome, None)
        return outcome

    def _copier(self, copy: Copy, on_bytes: Callable[[int], None] = lambda _: None) -> Copier:
        return Copier(
            self.connections.source(copy.source),
            self.connections.target,
            self._known,
            copy.wish.platforms,
            on_bytes,
            # What does not cross a link need not be kept against its cuts.
            partials=self._partials if self._gate else None,
            slots=self._slots,
            reserve=self._reserve,
        )

    @contextlib.contextmanager
    def _reserve(self, size_bytes: int) -> Iterator[None]:
        with self._disk.reserve(size_bytes):
            yield

    def _note(self, copy: Copy, outcome: ImageOutcome, error: HarborSatelliteError | None) -> None:
        with self._guard:
            self._staged[copy] = outcome
            self._errors.pop(copy, None)
            if error:
                self._errors[copy] = error

    def publish(self, plan: ReplicationPlan, fetched: FetchedState) -> tuple[ImageOutcome, ...]:
        """Check signatures, move the tags of what is complete, take away what no group wants.

        Returns:
            What became of every image of the plan.
        """
        publisher = Publisher(self.connections.target, self.store)
        signatures = [copy for copy in plan.copy if copy.is_signature and self.is_staged(copy)]
        for copy, error in publisher.publish_signatures(signatures).items():
            self._note(copy, failed_outcome(str(copy), copy.digest, error, copy.groups), error)
        with ThreadPoolExecutor(self.options.image_workers, "verify") as pool:
            list(pool.map(self._verify, plan.copy))
        staged = self.outcomes(plan.copy)
        self.record.quarantine(plan, self._errors, self._now())
        policies = {state.group: state.policy for state in fetched.groups}
        followed = Followed(fetched.digest, fetched.applied_groups(), policies)
        return publisher.publish_and_prune(plan, staged, followed, self._now())

    def _verify(self, copy: Copy) -> None:
        demands = demands_of(copy.wish.required_keys, self.options.image_keys)
        if copy.is_signature or not demands or not self.is_staged(copy):
            return
        try:
            self._verifier.verify(copy.repository, copy.digest, demands)
        except HarborSatelliteError as error:
            self._note(copy, failed_outcome(str(copy), copy.digest, error, copy.groups), error)

    def outcomes(self, copies: tuple[Copy, ...]) -> dict[Copy, ImageOutcome]:
        """Return what became of each copy; one that nobody noted failed without saying why."""
        unknown = HarborSatelliteError("its task ended without a result; see the task's log")
        with self._guard:
            return {
                copy: self._staged.get(copy) or failed_outcome(str(copy), copy.digest, unknown, copy.groups)
                for copy in copies
            }

    def finish(self, images: tuple[ImageOutcome, ...], fetched: FetchedState, plan: ReplicationPlan) -> RunOutcome:
        """Keep the record of a run that did something."""
        outcome = self._outcome(images, fetched.digest)
        self.record.followed(outcome, fetched, plan, self._now())
        if all(image.rule in {Rule.DISPUTED, Rule.QUARANTINE} for image in outcome.undone):  # nothing is on its way
            self._partials.clear_arrivals()
            self._partials.prune(())
        return outcome

    def rest(self) -> RunOutcome:
        """Keep the record of a run that found nothing to do."""
        drop_stale(self.connections.target, self.store)
        applied = self.store.applied()
        outcome = self._outcome(self.record.images_at_rest(applied), applied.state_digest)
        self.record.rested(outcome, self._look_at, self._now())
        return outcome

    def fail(self, error: HarborSatelliteError) -> None:
        """Keep why the run failed as a whole, or that nothing may be asked of the source now."""
        keep = self.record.paused if isinstance(error, PausedError) else self.record.failed
        keep(error, self._now())

    def _outcome(self, images: tuple[ImageOutcome, ...], state_digest: Digest | None) -> RunOutcome:
        seconds = time.monotonic() - self.started
        return RunOutcome(images, str(state_digest), seconds, self.connections.bytes_read, self.connections.requests)
