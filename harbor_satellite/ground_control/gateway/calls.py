"""The one table of what a site may call at Prefect. What is not in it is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from harbor_satellite.ground_control.gateway import rules
from harbor_satellite.ground_control.gateway.documents import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.ground_control.gateway.rules import Allowed, Asked

_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._-]+)+/?")
"""No escapes, no empty parts, no query: nothing that another server could read in another way."""
_PATH_MAX: Final = 512  # characters


class How(Enum):
    """Who answers."""

    PREFECT = "passed on"
    HEALTH = "told without asking: true"
    NO_CSRF = "told without asking: not in use"
    NO_STORAGE = "told without asking: none, since results stay at the site"
    TEMPLATE = "told without asking: done. Prefect would search for its patterns, for ever if they are made for that"
    POOL = "a copy that is kept for a while"
    POLL = "passed on only if the shared look found something due"
    DUE = "told by the shared look; never passed on"
    EVENTS = "passed on, but for those about others"
    HEARTBEAT = "passed on within the fleet's budget"


@dataclass(frozen=True, slots=True)
class Call:
    """One line of the table."""

    method: str
    path: str
    rule: Callable[[Asked], Allowed]
    why: str
    how: How = How.PREFECT


CALLS: Final = (
    Call("GET", "/health", rules.free, "the client's look whether the API is up", How.HEALTH),
    Call("GET", "/csrf-token", rules.free, "asked by clients that do not know that it is off", How.NO_CSRF),
    Call("GET", "/admin/version", rules.free, "the client's check of versions"),
    Call("GET", "/admin/storage", rules.free, "where results would go by default", How.NO_STORAGE),
    # -- the worker and its pool
    Call("GET", "/work_pools/{pool}", rules.own_pool, "how the pool is set up", How.POOL),
    Call("PATCH", "/work_pools/{pool}", rules.give_template, "a template, in a pool without one", How.TEMPLATE),
    Call("POST", "/work_pools/{pool}/get_scheduled_flow_runs", rules.poll, "what is due", How.POLL),
    Call("POST", "/work_pools/{pool}/due/{seconds}", rules.due, "whether a poll would find anything; ours", How.DUE),
    Call("POST", "/work_pools/{pool}/workers/heartbeat", rules.heartbeat, "the worker lives", How.HEARTBEAT),
    Call("GET", "/work_queues/{id}", rules.own("work_queue"), "named beside the run in its events"),
    Call("GET", "/deployments/{id}", rules.own("deployment"), "which flow the run is of"),
    # -- the run
    Call("GET", "/flow_runs/{id}", rules.own("flow_run"), "the engine reads its run"),
    Call("PATCH", "/flow_runs/{id}", rules.change_run, "the run's name, the worker's process"),
    Call("PATCH", "/flow_runs/{id}/labels", rules.label_run, "labels of the flow's code"),
    Call("POST", "/flow_runs/{id}/set_state", rules.set_run_state, "Pending, Running, and how it ended"),
    Call("POST", "/flow_runs/filter", rules.find_runs, "lost runs, and runs to be cancelled"),
    Call("GET", "/flows/{id}", rules.own("flow"), "named beside the run in its events"),
    Call("POST", "/v2/concurrency_limits/leases/{id}/renew", rules.renew_lease, "the run keeps its place"),
    # -- runs inside the run
    Call("POST", "/flows/", rules.create_flow, "which flow a run inside the run is of"),
    Call("POST", "/task_runs/", rules.create_task_run, "the run inside, as a task of the outer one"),
    Call("GET", "/task_runs/{id}", rules.own("task_run"), "the engine reads that task"),
    Call("POST", "/flow_runs/", rules.create_run, "the run inside itself"),
    # -- what it says
    Call("POST", "/logs/", rules.write_logs, "log lines"),
    Call("POST", "/events", rules.free, "states of task runs, and that the run lives", How.EVENTS),
    Call("POST", "/artifacts/", rules.create_artifact, "tables and progress"),
    Call("PATCH", "/artifacts/{id}", rules.change_artifact, "progress goes on"),
)


def find_call(method: str, path: str) -> tuple[Call, dict[str, str]]:
    """Return the line for a call, and what stands at the ``{…}`` of its path.

    Args:
        method: as sent.
        path: what follows the gateway's own address, as sent, with its query if there is one.

    Raises:
        RefusedError: there is none.
    """
    if len(path) <= _PATH_MAX and _PATH.fullmatch(path):
        for call, pattern in _PATTERNS:
            found = pattern.fullmatch(path) if call.method == method else None
            if found and not {".", ".."} & set(path.split("/")):
                return call, found.groupdict()
    raise RefusedError("not a call that a site makes")


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))


_PATTERNS: Final = tuple((call, _pattern(call.path)) for call in CALLS)
