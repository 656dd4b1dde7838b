"""Whose something is, by its id: asked of Prefect once, and remembered for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.ground_control.gateway.rules import SITE_FLOWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.ground_control.gateway.pools import Pools
    from harbor_satellite.ground_control.gateway.prefect_api import PrefectApi
    from harbor_satellite.ground_control.gateway.rules import Claim, Kind

_CAPACITY: Final = 50_000  # ids; some 15 MB
_LIFE_SECONDS: Final = 600.0
_DEPTH_MAX: Final = 4  # runs inside runs
_EVERYBODY: Final = "*"
_PATHS: Final[dict[str, str]] = {
    "flow_run": "/flow_runs/",
    "task_run": "/task_runs/",
    "deployment": "/deployments/",
    "work_queue": "/work_queues/",
    "flow": "/flows/",
    "artifact": "/artifacts/",
}
_HELD: Final = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}


class Owners:
    """Tells which work pool an id belongs to. What is kept is the owner, never a verdict.

    Args:
        api: Prefect.
        pools: for the ids of pools.
        monotonic: seconds of a clock that never goes back.
        capacity: ids kept at most; the least recently used go first.
    """

    def __init__(
        self,
        api: PrefectApi,
        pools: Pools,
        monotonic: Callable[[], float] = time.monotonic,
        capacity: int = _CAPACITY,
    ) -> None:
        self._api = api
        self._pools = pools
        self._monotonic = monotonic
        self._capacity = capacity
        self._kept: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    async def is_own(self, pool: str, claim: Claim) -> bool:
        """Tell whether something belongs to a pool.

        Raises:
            PrefectAwayError: nobody can tell now.
        """
        if claim.kind == "work_pool":
            return (await self._pools.read(pool)).document().get("id") == claim.id
        if claim.kind == "lease":
            return self._recall("lease", claim.id) == pool or await self._holds_lease(pool, claim.id)
        is_known, owner = await self._owner(claim.kind, claim.id, 0)
        if not is_known:
            return claim.may_be_new
        return owner in (pool, _EVERYBODY)

    def recalls(self, pool: str, claim: Claim) -> bool:
        """Tell whether Prefect need not be asked about a claim."""
        return claim.kind == "work_pool" or self._recall(claim.kind, claim.id) in {pool, _EVERYBODY}

    def learn(self, kind: Kind, one: str, pool: str) -> None:
        """Keep that a pool owns something: it was just made by it, or is not known to Prefect yet."""
        self._kept[kind, one] = pool, self._monotonic() + _LIFE_SECONDS
        self._kept.move_to_end((kind, one))
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def _recall(self, kind: str, one: str) -> str | None:
        kept = self._kept.get((kind, one))
        if kept is None or kept[1] < self._monotonic():
            self._kept.pop((kind, one), None)
            return None
        self._kept.move_to_end((kind, one))
        return kept[0]

    async def _owner(self, kind: Kind, one: str, depth: int) -> tuple[bool, str | None]:
        """Return whether Prefect knows it, and which pool's it is, if any."""
        kept = self._recall(kind, one)
        if kept is not None:
            return True, kept
        answer = await self._api.call("GET", _PATHS[kind] + one)
        document = answer.document()
        # Prefect's own word for the id: an answer about something else proves nothing.
        if document.get("id") != one:
            return answer.status != _NOT_FOUND, None
        owner = await self._owner_said(kind, document, depth)
        if owner is not None:
            self.learn(kind, one, owner)
        return True, owner

    async def _owner_said(self, kind: Kind, document: dict[str, Any], depth: int) -> str | None:
        if kind == "flow":
            return _EVERYBODY if document.get("name") in SITE_FLOWS else None
        if kind in {"deployment", "work_queue"} or (kind == "flow_run" and document.get("work_pool_name")):
            pool = document.get("work_pool_name")
            return pool if isinstance(pool, str) else None
        if depth >= _DEPTH_MAX:
            return None
        if kind == "flow_run":
            parent = document.get("parent_task_run_id")
            return (await self._owner("task_run", parent, depth + 1))[1] if isinstance(parent, str) else None
        if isinstance(run := document.get("flow_run_id"), str):
            return (await self._owner("flow_run", run, depth + 1))[1]
        return None

    async def _holds_lease(self, pool: str, lease: str) -> bool:
        body = {"flow_runs": _HELD, "work_pools": {"name": {"any_": [pool]}}, "limit": 50}
        runs = (await self._api.call("POST", "/flow_runs/filter", body)).value()
        for run in runs if isinstance(runs, list) else ():
            details = (run.get("state") or {}).get("state_details") or {}
            if run.get("work_pool_name") == pool and details.get("deployment_concurrency_lease_id") == lease:
                self.learn("lease", lease, pool)
                return True
        return False


_NOT_FOUND: Final = 404
