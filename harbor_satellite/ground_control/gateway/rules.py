"""The rules of the table in ``calls.py``: pure functions from what a site asks to what may be passed on.

A rule returns the body to send, written from keys that are known to be harmless, and what must be proven to be
the satellite's own before it is sent. What is not the satellite's in any case raises ``RefusedError``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from harbor_satellite.ground_control.gateway.documents import RefusedError, a_list, an_id, an_object, only
from harbor_satellite.state.names import SatelliteName, work_pool_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

Kind = Literal["flow_run", "task_run", "deployment", "work_queue", "work_pool", "flow", "artifact", "lease"]

SITE_FLOWS: Final = frozenset(
    {"replicate-state", "report-status", "audit-registry", "register-satellite", "configure-host"}
)
"""Flows that sites run; Prefect keeps one of each for all of them."""
_LOGS_MAX: Final = 5000  # in one request
IDS_MAX: Final = 200  # that one request may name: each may cost a look at Prefect
_LIMIT_MAX: Final = 200  # of one answer; Prefect's own

_SECONDS_DIGITS: Final = 6

_DETAILS: Final = frozenset(
    {"scheduled_time", "pause_timeout", "pause_reschedule", "pause_key", "refresh_cache", "retriable"}
    | {"transition_id", "task_parameters_id", "untrackable_result", "traceparent"}
)
"""What a site may say about a state; the rest names other runs, leases or caches, which Prefect fills in itself."""
_STATE: Final = frozenset({"type", "name", "message", "data"})
_RUN: Final = frozenset(
    {"name", "flow_id", "flow_version", "parameters", "context", "parent_task_run_id", "empirical_policy"}
    | {"tags", "labels"}
)
_TASK_RUN: Final = frozenset(
    {"name", "flow_run_id", "task_key", "dynamic_key", "task_version", "empirical_policy", "tags", "labels"}
    | {"task_inputs"}
)
_RUN_CHANGES: Final = frozenset(
    {"name", "flow_version", "parameters", "empirical_policy", "tags", "infrastructure_pid"}
)
_STATE_NAME_MAX: Final = 200  # characters; it is in an index
_KEY_WORDS: Final = ("replication", "audit")
"""How the keys of a site's artifacts begin; the centre's own, such as ``rollout-7``, begin otherwise."""
_LOG: Final = frozenset({"name", "level", "message", "timestamp", "flow_run_id", "task_run_id"})
_ARTIFACT: Final = frozenset({"key", "type", "description", "data", "metadata_", "flow_run_id", "task_run_id"})
_ARTIFACT_CHANGES: Final = frozenset({"data", "description", "metadata_"})


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must be the satellite's own."""

    kind: Kind
    id: str
    may_be_new: bool = False
    """Whether Prefect need not know it yet: task runs are told of by events, which may come later."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of a satellite."""

    satellite: SatelliteName
    params: Mapping[str, str]
    """What stands at the ``{…}`` of the path."""
    body: Any = None
    """The parsed body; None: none was sent."""
    agent: str = ""
    """Which client of Prefect's calls, if it is one."""

    @property
    def pool(self) -> str:
        """The satellite's own work pool."""
        return work_pool_name(self.satellite)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be passed on, once every claim is proven."""

    body: Any = None
    claims: frozenset[Claim] = field(default_factory=frozenset)


def free(asked: Asked) -> Allowed:
    """Allow what is about nobody."""
    del asked
    return Allowed()


def own_pool(asked: Asked) -> Allowed:
    """Allow what names the satellite's own pool in its path."""
    if asked.params["pool"] != asked.pool:
        raise RefusedError("another satellite's work pool")
    return Allowed()


def give_template(asked: Asked) -> Allowed:
    """Allow a worker to say what its own pool's jobs look like; it is not passed on, since sites do not follow it."""
    own_pool(asked)
    an_object(an_object(asked.body).get("base_job_template"), "base_job_template")
    return Allowed()


def poll(asked: Asked) -> Allowed:
    """Allow asking the satellite's own pool for due runs."""
    own_pool(asked)
    body = an_object(asked.body)
    try:
        if datetime.fromisoformat(body.get("scheduled_before", "")).tzinfo is None:
            raise RefusedError("scheduled_before has no time zone")
    except (TypeError, ValueError):
        raise RefusedError("scheduled_before is no time") from None
    limit = body.get("limit")
    if limit is not None and (not isinstance(limit, int) or not 0 <= limit <= _LIMIT_MAX):
        raise RefusedError("the limit is no number up to 200")
    return Allowed(only(body, frozenset({"scheduled_before", "limit", "work_queue_names"})))


def due(asked: Asked) -> Allowed:
    """Allow asking whether the satellite's own pool has runs that are due within so many seconds."""
    own_pool(asked)
    seconds = asked.params["seconds"]
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= _SECONDS_DIGITS):
        raise RefusedError("not a number of seconds")
    return Allowed(int(seconds))


def heartbeat(asked: Asked) -> Allowed:
    """Allow the one worker of the satellite's own pool to say that it lives."""
    own_pool(asked)
    body = an_object(asked.body)
    if body.get("name") != asked.pool:
        raise RefusedError("the worker is not named as its work pool")
    return Allowed(only(body, frozenset({"name", "heartbeat_interval_seconds", "metadata"})))


def own(kind: Kind) -> Callable[[Asked], Allowed]:
    """Make the rule that allows reading something that the path names by its id."""

    def rule(asked: Asked) -> Allowed:
        return Allowed(claims=frozenset({_in_path(kind, asked)}))

    return rule


def set_run_state(asked: Asked) -> Allowed:
    """Allow moving an own run to another state."""
    body = an_object(asked.body)
    force = body.get("force", False)
    if not isinstance(force, bool):
        raise RefusedError("force is neither true nor false")
    return Allowed({"state": _run_state(body.get("state")), "force": force}, frozenset({_in_path("flow_run", asked)}))


def change_run(asked: Asked) -> Allowed:
    """Allow changing an own run, but not where it belongs."""
    return Allowed(only(an_object(asked.body), _RUN_CHANGES), frozenset({_in_path("flow_run", asked)}))


def label_run(asked: Asked) -> Allowed:
    """Allow labels on an own run."""
    return Allowed(an_object(asked.body), frozenset({_in_path("flow_run", asked)}))


def create_flow(asked: Asked) -> Allowed:
    """Allow looking up a flow that all sites run; Prefect makes it if nobody has yet."""
    name = an_object(asked.body).get("name")
    if name not in SITE_FLOWS:
        raise RefusedError("not a flow of a site")
    return Allowed({"name": name})


def create_run(asked: Asked) -> Allowed:
    """Allow a run inside an own run, in no pool and of no deployment."""
    body = an_object(asked.body)
    for key in ("deployment_id", "work_pool_name", "work_queue_name"):
        if body.get(key) is not None:
            raise RefusedError(f"a new run says {key}")
    parent = Claim("task_run", an_id(body.get("parent_task_run_id"), "parent_task_run_id"))
    flow = Claim("flow", an_id(body.get("flow_id"), "flow_id"))
    if body.get("state") is not None:
        _run_state(body["state"])
    return Allowed(_with_state(only(body, _RUN), body), frozenset({parent, flow}))


def create_task_run(asked: Asked) -> Allowed:
    """Allow a task run inside an own run: it stands for a run inside that run."""
    body = an_object(asked.body)
    parent = Claim("flow_run", an_id(body.get("flow_run_id"), "flow_run_id"))
    return Allowed(_with_state(only(body, _TASK_RUN), body), frozenset({parent}))


def find_runs(asked: Asked) -> Allowed:
    """Allow looking for runs of the own pool, or for runs inside own runs."""
    body = an_object(asked.body)
    shape: dict[str, Any] = {"sort": body.get("sort") or "ID_DESC", "offset": body.get("offset") or 0}
    shape["limit"] = body.get("limit") or _LIMIT_MAX
    given = {key for key, value in body.items() if value not in (None, {})} - {"sort", "offset", "limit"}
    if given - {"flow_runs", "work_pools"}:
        raise RefusedError("a filter on something else than runs and pools")
    runs = an_object(body.get("flow_runs") or {}, "flow_runs")
    parents = an_object(runs.get("parent_flow_run_id") or {}, "parent_flow_run_id").get("any_")
    if parents is None:
        return Allowed({**shape, "flow_runs": runs or None, "work_pools": {"name": {"any_": [asked.pool]}}})
    # With "or_", naming own parents would not keep the others out.
    if runs.get("operator", "and_") != "and_":
        raise RefusedError("alternatives beside parent_flow_run_id")
    ids = [an_id(one, "parent_flow_run_id") for one in a_list(parents, "parent_flow_run_id", IDS_MAX)]
    if not ids:
        raise RefusedError("no parent named")
    runs = {**runs, "operator": "and_", "parent_flow_run_id": {"any_": ids}}
    return Allowed({**shape, "flow_runs": runs}, frozenset(Claim("flow_run", one) for one in ids))


def write_logs(asked: Asked) -> Allowed:
    """Allow log lines of own runs."""
    items = [only(an_object(item, "a log line"), _LOG) for item in a_list(asked.body, "the body", _LOGS_MAX)]
    claims: set[Claim] = set()
    for item in items:
        claims |= _of_run(item)
    return Allowed(items, few(claims))


def create_artifact(asked: Asked) -> Allowed:
    """Allow an artifact of an own run, under a key that ends with the satellite's name."""
    body = only(an_object(asked.body), _ARTIFACT)
    key = body.get("key")
    if key is not None and not is_own_key(key, asked.satellite):
        raise RefusedError("the artifact's key is not the satellite's own")
    return Allowed(body, few(_of_run(body)))


def change_artifact(asked: Asked) -> Allowed:
    """Allow changing an artifact of an own run."""
    return Allowed(only(an_object(asked.body), _ARTIFACT_CHANGES), frozenset({_in_path("artifact", asked)}))


def renew_lease(asked: Asked) -> Allowed:
    """Allow keeping the place that an own run has among the runs of its deployment."""
    seconds = an_object(asked.body).get("lease_duration")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise RefusedError("lease_duration is no number")
    return Allowed({"lease_duration": seconds}, frozenset({_in_path("lease", asked)}))


def is_own_key(key: object, satellite: str) -> bool:
    """Tell whether an artifact's key is one that ``tasks/tables.py`` and ``tasks/audit.py`` write for the satellite."""
    name = satellite.replace("-", "--").replace(".", "-d-").replace("_", "-u-")
    return isinstance(key, str) and key in {f"{word}-{name}" for word in _KEY_WORDS}


def state_of(value: Any) -> dict[str, Any]:
    """Return a state without what only Prefect may say in it; raises ``RefusedError`` if it is none."""
    state = an_object(value, "the state")
    details = an_object(state.get("state_details") or {}, "state_details")
    if len(str(state.get("name") or "")) > _STATE_NAME_MAX:
        raise RefusedError("the state has too long a name")
    return {**only(state, _STATE), "state_details": only(details, _DETAILS)}


def _run_state(value: Any) -> dict[str, Any]:
    state = state_of(value)
    # The centre schedules, and Prefect what it retries: what is due is looked through for the whole fleet.
    if state.get("type") == "SCHEDULED":
        raise RefusedError("a site schedules nothing")
    return state


def _with_state(body: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    return body if given.get("state") is None else {**body, "state": state_of(given["state"])}


def _in_path(kind: Kind, asked: Asked) -> Claim:
    return Claim(kind, an_id(asked.params["id"], "the id in the path"))


def _of_run(item: dict[str, Any]) -> set[Claim]:
    claims = {Claim("flow_run", an_id(item.get("flow_run_id"), "flow_run_id"))}
    if item.get("task_run_id") is not None:
        claims.add(Claim("task_run", an_id(item["task_run_id"], "task_run_id"), may_be_new=True))
    return claims


def few(claims: Collection[Claim], most: int = IDS_MAX) -> frozenset[Claim]:
    """Return the claims, unless they are too many; raises ``RefusedError`` then."""
    if len(claims) > most:
        raise RefusedError(f"more than {IDS_MAX} runs in one request")
    return frozenset(claims)
