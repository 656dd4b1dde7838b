"""The gateway's table and rules: for each call, what is the satellite's own and what is not. No socket, no database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harbor_satellite.ground_control.gateway.calls import CALLS, How, find_call
from harbor_satellite.ground_control.gateway.documents import BODY_MAX_BYTES, RefusedError, parse, write
from harbor_satellite.ground_control.gateway.events import judge_event
from harbor_satellite.ground_control.gateway.rules import Allowed, Asked, Claim, is_own_key
from harbor_satellite.state.names import satellite_name

ME = satellite_name("shop-001")
POOL = "satellite-shop-001"
RUN = "11111111-1111-4111-8111-111111111111"
TASK = "22222222-2222-4222-8222-222222222222"
FLOW = "33333333-3333-4333-8333-333333333333"
SOON = "2026-01-01T00:00:00Z"


def judge(method: str, path: str, body: Any = None) -> Allowed:
    call, params = find_call(method, path)
    return call.rule(Asked(ME, params, body))


def refusal(method: str, path: str, body: Any = None) -> str:
    with pytest.raises(RefusedError) as caught:
        judge(method, path, body)
    return str(caught.value)


RUN_STATE = {"state": {"type": "RUNNING", "name": "Running"}, "force": False}
OWN_CALLS: list[tuple[str, str, Any, set[str]]] = [
    ("GET", "/health", None, set()),
    ("GET", "/csrf-token", None, set()),
    ("GET", "/admin/version", None, set()),
    ("GET", "/admin/storage", None, set()),
    ("GET", f"/work_pools/{POOL}", None, set()),
    ("PATCH", f"/work_pools/{POOL}", {"base_job_template": {}}, set()),
    ("POST", f"/work_pools/{POOL}/get_scheduled_flow_runs", {"scheduled_before": SOON}, set()),
    ("POST", f"/work_pools/{POOL}/due/60", None, set()),
    ("POST", f"/work_pools/{POOL}/workers/heartbeat", {"name": POOL}, set()),
    ("GET", f"/work_queues/{RUN}", None, {"work_queue"}),
    ("GET", f"/deployments/{RUN}", None, {"deployment"}),
    ("GET", f"/flow_runs/{RUN}", None, {"flow_run"}),
    ("PATCH", f"/flow_runs/{RUN}", {"name": "a"}, {"flow_run"}),
    ("PATCH", f"/flow_runs/{RUN}/labels", {"a": "b"}, {"flow_run"}),
    ("POST", f"/flow_runs/{RUN}/set_state", RUN_STATE, {"flow_run"}),
    ("POST", "/flow_runs/filter", {}, set()),
    ("GET", f"/flows/{FLOW}", None, {"flow"}),
    ("POST", f"/v2/concurrency_limits/leases/{RUN}/renew", {"lease_duration": 300}, {"lease"}),
    ("POST", "/flows/", {"name": "report-status"}, set()),
    ("POST", "/task_runs/", {"flow_run_id": RUN, "task_key": "a", "dynamic_key": "0"}, {"flow_run"}),
    ("GET", f"/task_runs/{TASK}", None, {"task_run"}),
    ("POST", "/flow_runs/", {"flow_id": FLOW, "parent_task_run_id": TASK}, {"task_run", "flow"}),
    ("POST", "/logs/", [{"flow_run_id": RUN, "message": "a"}], {"flow_run"}),
    ("POST", "/events", [], set()),
    ("POST", "/artifacts/", {"flow_run_id": RUN, "key": "replication-shop--001"}, {"flow_run"}),
    ("PATCH", f"/artifacts/{RUN}", {"data": 3}, {"artifact"}),
]


@pytest.mark.parametrize(("method", "path", "body", "kinds"), OWN_CALLS, ids=[f"{c[0]} {c[1][:40]}" for c in OWN_CALLS])
def test_call_about_its_own_is_allowed_with_what_must_be_proven(
    method: str, path: str, body: Any, kinds: set[str]
) -> None:
    allowed = judge(method, path, body)

    assert {claim.kind for claim in allowed.claims} == kinds


def test_table_of_these_tests_names_every_call() -> None:
    tried = {find_call(method, path)[0] for method, path, _, _ in OWN_CALLS}

    assert tried == set(CALLS)


OTHERS: list[tuple[str, str, Any]] = [
    ("GET", "/work_pools/satellite-shop-002", None),
    ("POST", "/work_pools/satellite-shop-002/get_scheduled_flow_runs", {"scheduled_before": SOON}),
    ("POST", "/work_pools/satellite-shop-002/workers/heartbeat", {"name": POOL}),
    ("POST", f"/work_pools/{POOL}/workers/heartbeat", {"name": "satellite-shop-002"}),
    ("POST", "/work_pools/satellite-shop-002/due/60", None),
    ("POST", f"/work_pools/{POOL}/due/soon", None),
    ("POST", f"/work_pools/{POOL}/due/-1", None),
    ("POST", f"/work_pools/{POOL}/due/10000000", None),
    ("POST", f"/work_pools/{POOL}/get_scheduled_flow_runs", {}),
    ("POST", f"/work_pools/{POOL}/get_scheduled_flow_runs", {"scheduled_before": "2026-01-01T00:00:00"}),
    ("POST", f"/work_pools/{POOL}/get_scheduled_flow_runs", {"scheduled_before": SOON, "limit": 10_000}),
    ("POST", "/flows/", {"name": "publish-state"}),
    ("POST", "/flow_runs/", {"flow_id": FLOW}),
    ("POST", "/flow_runs/", {"flow_id": FLOW, "parent_task_run_id": TASK, "deployment_id": RUN}),
    ("POST", "/flow_runs/", {"flow_id": FLOW, "parent_task_run_id": TASK, "work_pool_name": "satellite-shop-002"}),
    ("POST", "/flow_runs/", {"flow_id": FLOW, "parent_task_run_id": TASK, "work_queue_name": "default"}),
    ("POST", "/task_runs/", {"flow_run_id": None, "task_key": "a", "dynamic_key": "0"}),
    ("POST", "/logs/", [{"message": "of nobody"}]),
    ("POST", "/logs/", [{"task_run_id": TASK, "message": "of a task run alone"}]),
    ("POST", "/artifacts/", {"key": "replication-shop--001"}),
    ("POST", "/artifacts/", {"flow_run_id": RUN, "key": "replication-shop--002"}),
    ("POST", "/flow_runs/filter", {"task_runs": {"id": {"any_": [TASK]}}}),
    (
        "POST",
        "/flow_runs/filter",
        {
            "flow_runs": {
                "operator": "or_",
                "parent_flow_run_id": {"any_": [RUN]},
                "state": {"type": {"any_": ["RUNNING"]}},
            }
        },
    ),
    ("POST", "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": []}}}),
    ("POST", f"/flow_runs/{RUN}/set_state", {"state": "RUNNING"}),
    ("POST", f"/flow_runs/{RUN}/set_state", {"state": {"type": "RUNNING"}, "force": "yes"}),
    ("GET", "/flow_runs/me", None),
    # -- calls that no site makes
    ("DELETE", f"/flow_runs/{RUN}", None),
    ("GET", "/variables/name/a", None),
    ("POST", "/variables/filter", {}),
    ("GET", "/block_types/slug/secret/block_documents/name/a", None),
    ("POST", "/block_documents/filter", {}),
    ("POST", f"/deployments/{RUN}/create_flow_run", {}),
    ("POST", "/deployments/filter", {}),
    ("POST", "/deployments/get_scheduled_flow_runs", {}),
    ("POST", "/logs/filter", {}),
    ("POST", "/work_pools/filter", {}),
    ("POST", "/work_pools/", {"name": POOL}),
    ("PATCH", f"/work_pools/{POOL}", {"is_paused": True}),
    ("PATCH", "/work_pools/satellite-shop-002", {"base_job_template": {}}),
    ("DELETE", f"/work_pools/{POOL}", None),
    ("POST", f"/task_runs/{TASK}/set_state", RUN_STATE),
    ("POST", "/automations/", {}),
    ("POST", "/admin/database/clear", {"confirm": True}),
    ("GET", "/admin/settings", None),
]


@pytest.mark.parametrize(
    ("method", "path", "body"), OTHERS, ids=[f"{c[0]} {c[1][:40]} {n}" for n, c in enumerate(OTHERS)]
)
def test_call_about_others_is_refused(method: str, path: str, body: Any) -> None:
    assert refusal(method, path, body)


TRICKS = [
    f"/work_pools/../flow_runs/{RUN}",
    "/work_pools/..",
    f"/work_pools/{POOL}%2F..%2F",
    "/work_pools%2Ffilter",
    "//health",
    "/health/",
    "/Health",
    "/health?x=1",
    "/health#a",
    "/health;a",
    f"/flow_runs/{RUN}/",
    f"/flow_runs/{RUN}\n",
    f"/flow_runs/{RUN.replace('-', '')}",
    "/health\\",
    "",
    "/",
    "/" + "a" * 2000,
]


@pytest.mark.parametrize("path", TRICKS)
def test_path_that_is_written_in_another_way_is_refused(path: str) -> None:
    assert refusal("GET", path)


def test_found_runs_are_of_the_own_pool_whatever_was_asked() -> None:
    asked = {"work_pools": {"name": {"any_": ["satellite-shop-002"]}}, "flow_runs": {"operator": "or_"}, "limit": 5}

    allowed = judge("POST", "/flow_runs/filter", asked)

    assert allowed.body["work_pools"] == {"name": {"any_": [POOL]}}


def test_runs_inside_runs_are_found_only_below_own_runs() -> None:
    allowed = judge("POST", "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [RUN]}}})

    assert allowed.claims == {Claim("flow_run", RUN)}


def test_change_of_a_run_keeps_it_where_it_belongs() -> None:
    asked = {"name": "a", "deployment_id": RUN, "work_queue_id": RUN, "work_pool_name": "other", "job_variables": {}}

    assert judge("PATCH", f"/flow_runs/{RUN}", asked).body == {"name": "a"}


def test_state_of_a_run_names_no_lease_cache_or_other_run() -> None:
    details = {"deployment_concurrency_lease_id": RUN, "cache_key": "a", "child_flow_run_id": RUN, "retriable": True}
    asked = {"state": {"type": "RUNNING", "id": RUN, "state_details": details}, "force": True}

    allowed = judge("POST", f"/flow_runs/{RUN}/set_state", asked)

    assert allowed.body == {"state": {"type": "RUNNING", "state_details": {"retriable": True}}, "force": True}


def test_new_run_cannot_be_one_that_is_there_already() -> None:
    asked = {"flow_id": FLOW, "parent_task_run_id": TASK, "idempotency_key": "a", "infrastructure_document_id": RUN}

    assert judge("POST", "/flow_runs/", asked).body == {"flow_id": FLOW, "parent_task_run_id": TASK}


@pytest.mark.parametrize(
    ("satellite", "key", "is_own"),
    [
        ("b", "replication-b", True),
        ("a-b", "audit-a--b", True),
        ("b", "replication-a--b", False),
        ("b", "replication-a-b", False),
        ("b", "b", False),
        ("7", "rollout-7", False),
        ("a.b", "replication-a-d-b", True),
        ("b", "replication-b\n", False),
        ("b", 7, False),
    ],
)
def test_key_of_an_artifact_is_one_word_and_the_satellites_name(satellite: str, key: object, is_own: bool) -> None:  # noqa: FBT001
    assert is_own_key(key, satellite) is is_own


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"[" * 100 + b"]" * 100,
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b"1" * 19,
        b"1e999",
        b'"' + b"a" * BODY_MAX_BYTES + b'"',
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_body_that_another_parser_could_read_otherwise_is_refused(raw: bytes) -> None:
    with pytest.raises(RefusedError):
        parse(raw)


def test_body_is_written_anew() -> None:
    assert write(parse(b' {"a" : [1,  "\\u00e9"] }')) == '{"a":[1,"\u00e9"]}'.encode()


def test_logs_that_name_too_many_runs_are_refused() -> None:
    items = [{"flow_run_id": f"11111111-1111-4111-8111-{number:012d}"} for number in range(201)]

    assert "more than 200" in refusal("POST", "/logs/", items)


# -- events


def event(**changes: Any) -> dict[str, Any]:
    return {
        "occurred": SOON,
        "event": "prefect.task-run.Completed",
        "id": RUN,
        "resource": {"prefect.resource.id": f"prefect.task-run.{TASK}"},
        "related": [{"prefect.resource.id": f"prefect.flow-run.{RUN}", "prefect.resource.role": "flow-run"}],
        "payload": {"validated_state": {"type": "COMPLETED"}, "task_run": {"task_key": "a", "dynamic_key": "0"}},
        **changes,
    }


def judged(document: Any) -> Allowed:
    return judge_event(document, Asked(ME, {}))


def test_event_of_a_task_run_must_be_of_an_own_run() -> None:
    claims = judged(event()).claims

    assert claims == {Claim("flow_run", RUN), Claim("task_run", TASK, may_be_new=True)}


def test_event_cannot_say_that_the_task_run_is_another_one() -> None:
    task_run = {"task_key": "a", "dynamic_key": "0", "id": FLOW, "flow_run_id": FLOW, "state_id": FLOW, "state": {}}
    state = {"type": "COMPLETED", "id": FLOW, "state_details": {"flow_run_id": FLOW}}

    payload = judged(event(payload={"validated_state": state, "task_run": task_run})).body["payload"]

    assert FLOW not in json.dumps(payload)


FOREIGN_EVENTS = {
    "starts a central flow": event(event="harbor-satellite.group.changed", resource={"prefect.resource.id": "a"}),
    "starts one under a cover": event(event="harbor-satellite.group.changed"),
    "state of a run": event(
        event="prefect.flow-run.Completed", resource={"prefect.resource.id": f"prefect.flow-run.{RUN}"}
    ),
    "no run": event(related=[]),
    "two runs": event(related=event()["related"] * 2),
    "a run of another kind": event(
        related=[{"prefect.resource.id": f"prefect.deployment.{RUN}", "prefect.resource.role": "flow-run"}]
    ),
    "an asset": event(related=[*event()["related"], {"prefect.resource.id": "prefect.asset.a"}]),
    "another's worker": event(
        event="prefect.worker.started",
        resource={"prefect.resource.id": "prefect.worker.harbor-satellite.satellite-shop-002"},
    ),
    "no id": event(resource={"prefect.resource.id": "prefect.task-run.a"}),
    "label that is no text": event(resource={"prefect.resource.id": f"prefect.task-run.{TASK}", "a": 1}),
    "no object": [],
    "no state": event(payload={"task_run": {}}),
}


@pytest.mark.parametrize("document", FOREIGN_EVENTS.values(), ids=FOREIGN_EVENTS.keys())
def test_event_that_is_not_the_satellites_is_refused(document: Any) -> None:
    with pytest.raises(RefusedError):
        judged(document)


def test_polls_and_heartbeats_are_not_simply_passed_on() -> None:
    hows = {call.path: call.how for call in CALLS}

    assert hows["/work_pools/{pool}/get_scheduled_flow_runs"] is How.POLL
    assert hows["/work_pools/{pool}/workers/heartbeat"] is How.HEARTBEAT


POISON: dict[str, dict[str, Any]] = {
    "count that no column holds": {"task_run": {"run_count": 2**31}},
    "name that no index holds": {"task_run": {"name": "a" * 3000}},
    "key that no index holds": {"task_run": {"dynamic_key": "a" * 3000}},
    "time that is none": {"task_run": {"start_time": "soon"}},
    "input of no kind": {"task_run": {"task_inputs": {"a": [{"input_type": "b"}]}}},
    "state of no type": {"validated_state": {"type": "BOGUS"}},
    "state whose name is none": {"validated_state": {"name": 7}},
    "detail that is none": {"validated_state": {"state_details": {"transition_id": "a"}}},
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_event_that_would_spoil_the_batch_in_which_prefect_writes_those_of_all_is_refused(
    poison: dict[str, dict[str, Any]],
) -> None:
    payload = {key: {**value, **poison.get(key, {})} for key, value in event()["payload"].items()}

    with pytest.raises(RefusedError):
        judged(event(payload=payload))


def test_event_with_an_id_that_no_index_holds_is_refused() -> None:
    related = [*event()["related"], {"prefect.resource.id": "prefect.tag." + "a" * 3000}]

    with pytest.raises(RefusedError):
        judged(event(related=related))


def test_site_schedules_no_run_since_what_is_due_is_looked_through_for_all() -> None:
    state = {"state": {"type": "SCHEDULED"}}

    assert "schedules" in refusal("POST", f"/flow_runs/{RUN}/set_state", state)
    assert "schedules" in refusal("POST", "/flow_runs/", {"flow_id": FLOW, "parent_task_run_id": TASK, **state})


def test_characters_that_a_database_refuses_are_replaced() -> None:
    assert write(parse(b'["\\u0000", "\\ud800"]')) == b'["\\ufffd","?"]'
