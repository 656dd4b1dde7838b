"""Events of a site: what they may be about. Pure.

An event is how Prefect learns of task runs, so one that names what is not the satellite's own would change
another satellite's run; and one of another kind could start what automations wait for.
"""

from __future__ import annotations

import re
from typing import Any, Final

from harbor_satellite.ground_control.gateway.documents import RefusedError, a_list, an_id, an_object, only
from harbor_satellite.ground_control.gateway.rules import Allowed, Asked, Claim, Kind
from harbor_satellite.ground_control.gateway.task_runs import task_run_of, task_state_of

EVENTS_MAX: Final = 100
"""In one request."""
_RELATED_MAX: Final = 50
_EVENT: Final = frozenset({"occurred", "event", "id", "follows"})
_RESOURCE: Final = re.compile(r"prefect\.([a-z-]+)\.(.+)", re.DOTALL)
_KINDS: Final[dict[str, Kind]] = {
    "flow-run": "flow_run",
    "task-run": "task_run",
    "deployment": "deployment",
    "flow": "flow",
    "work-queue": "work_queue",
    "work-pool": "work_pool",
}
_LABELS_MAX: Final = 50  # of one resource
_INDEXED: Final = {"prefect.resource.id": 300, "prefect.resource.role": 60}  # characters
_WORKER_EVENTS: Final = re.compile(r"prefect\.worker\.[a-z-]{1,60}")
_ARTIFACT_EVENTS: Final = frozenset({"prefect.artifact.created", "prefect.artifact.updated"})
_TASK_RUN_EVENTS: Final = re.compile(r"prefect\.task-run\.\w{1,60}")
_RUN_EVENTS: Final = frozenset({"prefect.flow-run.heartbeat"})
"""Prefect itself tells of a run's states."""


def judge_event(value: Any, asked: Asked) -> Allowed:
    """Decide on one event.

    Returns:
        The event as it may be passed on, and what must be the satellite's own.

    Raises:
        RefusedError: a site does not emit such events, or it is about somebody else's.
    """
    event = an_object(value, "the event")
    name, resource = event.get("event"), _resource(event.get("resource"))
    kind, one = _named(resource)
    related = [_resource(item) for item in a_list(event.get("related", []), "related", _RELATED_MAX)]
    claims = {claim for item in related for claim in _claim(item, asked)}
    payload = an_object(event.get("payload") or {}, "the payload")
    if not isinstance(name, str):
        raise RefusedError("the event has no name")
    if kind == "task-run" and _TASK_RUN_EVENTS.fullmatch(name):
        _check_one_run(related)
        claims = {claim for claim in claims if claim.kind != "task_run" or claim.id != one}
        claims.add(Claim("task_run", an_id(one, "the task run"), may_be_new=True))
        payload = _task_run_payload(payload)
    elif kind == "artifact" and name in _ARTIFACT_EVENTS:
        claims.add(Claim("artifact", an_id(one, "the artifact")))
    elif kind == "flow-run" and name in _RUN_EVENTS:
        claims.add(Claim("flow_run", an_id(one, "the flow run")))
    elif not (kind == "worker" and _WORKER_EVENTS.fullmatch(name) and _is_own_worker(one, asked)):
        raise RefusedError(f"not an event of a site: {name[:80]!r}")
    return Allowed(
        {**only(event, _EVENT), "resource": resource, "related": related, "payload": payload}, frozenset(claims)
    )


def _resource(value: Any) -> dict[str, str]:
    resource = an_object(value, "a resource")
    if not all(isinstance(text, str) for text in resource.values()):
        raise RefusedError("a resource has a label that is no text")
    # Prefect writes the events of all sites down together: what its index refuses would take others' with it.
    if len(resource) > _LABELS_MAX or any(len(resource.get(key, "")) > most for key, most in _INDEXED.items()):
        raise RefusedError("a resource with too many labels, or too long ones")
    return resource


def _named(resource: dict[str, str]) -> tuple[str, str]:
    found = _RESOURCE.fullmatch(resource.get("prefect.resource.id", ""))
    if found is None:
        raise RefusedError("a resource that is not Prefect's")
    return found[1], found[2]


def _claim(resource: dict[str, str], asked: Asked) -> tuple[Claim, ...]:
    kind, one = _named(resource)
    if kind == "tag" or (kind == "worker" and _is_own_worker(one, asked)):
        return ()
    if kind not in _KINDS:
        raise RefusedError("a related resource that no site has")
    return (Claim(_KINDS[kind], an_id(one, f"the {kind}"), may_be_new=kind == "task-run"),)


def _check_one_run(related: list[dict[str, str]]) -> None:
    runs = [item for item in related if item.get("prefect.resource.role") == "flow-run"]
    if len(runs) != 1 or _named(runs[0])[0] != "flow-run":
        raise RefusedError("a task run of no run, or of several")


def _is_own_worker(name: str, asked: Asked) -> bool:
    slug = re.sub(r"[^a-z0-9]+", "-", asked.pool).strip("-")
    return name == f"harbor-satellite.{slug}"


def _task_run_payload(payload: dict[str, Any]) -> dict[str, Any]:
    states: dict[str, Any] = {key: payload[key] for key in ("intended", "initial_state") if key in payload}
    return {
        **states,
        "validated_state": task_state_of(an_object(payload.get("validated_state"), "the state")),
        "task_run": task_run_of(an_object(payload.get("task_run"), "the task run")),
    }
