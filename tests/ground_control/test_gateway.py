"""The gateway over HTTP, before a Prefect that is a table of answers: who gets what, and what Prefect is asked."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.ground_control.api.context import GATEWAY_PATH, AppOptions, Context
from harbor_satellite.ground_control.gateway.app import Gateway
from harbor_satellite.ground_control.models import Credential, Satellite
from harbor_satellite.ground_control.satellites.revisions import bump
from harbor_satellite.ground_control.satellites.sources import OciSource
from harbor_satellite.ground_control.tokens import hash_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harbor_satellite.ground_control.database import SessionFactory

MINE, OTHERS = "satellite-mine", "satellite-other"
RUN = "11111111-1111-4111-8111-111111111111"
FOREIGN_RUN = "99999999-9999-4999-8999-999999999999"
TASK = "22222222-2222-4222-8222-222222222222"
FOREIGN_TASK = "88888888-8888-4888-8888-888888888888"
CHILD = "33333333-3333-4333-8333-333333333333"
LEASE = "44444444-4444-4444-8444-444444444444"
ARTIFACT = "55555555-5555-4555-8555-555555555555"
AUTH = ("robot-mine", "secret-of-mine")
SECRET_PARAMETER = "parameter-of-the-other-site"


class FakePrefect:
    """Answers what it holds, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.is_down = False
        self.due: list[dict[str, Any]] = []
        held = {"type": "RUNNING", "state_details": {"deployment_concurrency_lease_id": LEASE}}
        self.documents: dict[str, dict[str, Any]] = {
            f"/flow_runs/{RUN}": {"id": RUN, "work_pool_name": MINE, "state": held},
            f"/flow_runs/{FOREIGN_RUN}": {
                "id": FOREIGN_RUN,
                "work_pool_name": OTHERS,
                "parameters": {"a": SECRET_PARAMETER},
            },
            f"/flow_runs/{CHILD}": {"id": CHILD, "work_pool_name": None, "parent_task_run_id": TASK},
            f"/task_runs/{TASK}": {"id": TASK, "flow_run_id": RUN},
            f"/task_runs/{FOREIGN_TASK}": {"id": FOREIGN_TASK, "flow_run_id": FOREIGN_RUN},
            f"/artifacts/{ARTIFACT}": {"id": ARTIFACT, "flow_run_id": FOREIGN_RUN},
            f"/work_pools/{MINE}": {"id": RUN, "name": MINE},
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.is_down:
            raise httpx.ConnectError("down")
        path = request.url.path.removeprefix("/api")
        if path == "/flow_runs/filter":
            asked = json.loads(request.content)
            if "work_pools" in asked:
                return httpx.Response(200, json=[self.documents[f"/flow_runs/{RUN}"]])
            return httpx.Response(200, json=self.due[asked["offset"] : asked["offset"] + asked["limit"]])
        if request.method == "GET":
            found = self.documents.get(path)
            return httpx.Response(200, json=found) if found else httpx.Response(404, json={})
        return httpx.Response(200, json=[])

    def paths(self) -> list[str]:
        return [request.url.path.removeprefix("/api") for request in self.requests]


class World:
    """A gateway with two satellites, and a client at its door."""

    def __init__(self, factory: SessionFactory) -> None:
        self.factory = factory
        self.prefect = FakePrefect()
        self.monotonic = 1000.0
        options = AppOptions(
            source_url="http://source.test",
            prefect_api_internal_url="http://prefect.test/api",
            prefect_api_auth=SecretStr("admin:centre-secret"),
        )
        self.context = Context(options, factory, OciSource(), monotonic=lambda: self.monotonic)
        with factory.begin() as session:
            for name in ("mine", "other"):
                enroll(session, name)

    @property
    def counters(self) -> Any:
        return self.context.counters

    def run(self, what: Callable[[httpx.AsyncClient, Gateway], Awaitable[Any]]) -> Any:
        async def inside() -> Any:
            gateway = Gateway(self.context, httpx.MockTransport(self.prefect))
            transport = httpx.ASGITransport(gateway)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test" + GATEWAY_PATH) as client:
                return await what(client, gateway)

        return asyncio.run(inside())

    def ask(self, method: str, path: str, auth: tuple[str, str] | None = AUTH, **request: Any) -> httpx.Response:
        async def one(client: httpx.AsyncClient, _: Gateway) -> httpx.Response:
            return await client.request(method, path, auth=auth, **request)

        answer: httpx.Response = self.run(one)
        return answer


def enroll(session: Any, name: str) -> None:
    now = datetime.now(UTC)
    satellite = Satellite(name=name, schedule="* * * * *", config_name="", created_at=now, updated_at=now)
    session.add(satellite)
    session.flush()
    session.add(
        Credential(
            satellite_id=satellite.id,
            username=f"robot-{name}",
            account_name=f"robot-{name}",
            secret_hash=hash_token(SecretStr(f"secret-of-{name}")),
            source_credential_id="",
            granted_projects=[],
            created_at=now,
        )
    )


@pytest.fixture
def world(session_factory: SessionFactory) -> World:
    return World(session_factory)


def poll_body(seconds: float = 10) -> dict[str, Any]:
    return {"scheduled_before": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(), "work_queue_names": []}


POLL = f"/work_pools/{MINE}/get_scheduled_flow_runs"


def due_in(pool: str, seconds: float) -> dict[str, Any]:
    return {
        "work_pool_name": pool,
        "next_scheduled_start_time": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
    }


# -- whose is it


OWN = [
    ("GET", f"/flow_runs/{RUN}", None),
    ("GET", f"/flow_runs/{CHILD}", None),
    ("POST", f"/flow_runs/{RUN}/set_state", {"state": {"type": "RUNNING"}}),
    ("POST", "/logs/", [{"flow_run_id": RUN, "task_run_id": TASK, "message": "a"}]),
    ("POST", "/logs/", [{"flow_run_id": RUN, "task_run_id": LEASE, "message": "of a task run that is not known yet"}]),
    ("POST", f"/v2/concurrency_limits/leases/{LEASE}/renew", {"lease_duration": 300}),
]


@pytest.mark.parametrize(("method", "path", "body"), OWN, ids=[f"{c[0]} {c[1][:20]} {n}" for n, c in enumerate(OWN)])
def test_call_about_its_own_reaches_prefect(world: World, method: str, path: str, body: Any) -> None:
    answer = world.ask(method, path, json=body)

    assert (answer.status_code, world.prefect.requests[-1].method) == (200, method)


FOREIGN = [
    ("GET", f"/flow_runs/{FOREIGN_RUN}", None),
    ("GET", f"/task_runs/{FOREIGN_TASK}", None),
    ("PATCH", f"/flow_runs/{FOREIGN_RUN}", {"name": "a"}),
    ("POST", f"/flow_runs/{FOREIGN_RUN}/set_state", {"state": {"type": "CANCELLED"}, "force": True}),
    ("POST", "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [RUN, FOREIGN_RUN]}}}),
    ("POST", "/logs/", [{"flow_run_id": RUN, "message": "a"}, {"flow_run_id": FOREIGN_RUN, "message": "b"}]),
    ("POST", "/logs/", [{"flow_run_id": RUN, "task_run_id": FOREIGN_TASK, "message": "a"}]),
    ("PATCH", f"/artifacts/{ARTIFACT}", {"data": 1}),
    ("POST", f"/v2/concurrency_limits/leases/{FOREIGN_RUN}/renew", {"lease_duration": 300}),
    ("GET", f"/flow_runs/{LEASE}", None),  # there is none
]


@pytest.mark.parametrize(
    ("method", "path", "body"), FOREIGN, ids=[f"{c[0]} {c[1][:20]} {n}" for n, c in enumerate(FOREIGN)]
)
def test_call_about_anothers_is_403_and_changes_nothing(world: World, method: str, path: str, body: Any) -> None:
    answer = world.ask(method, path, json=body)

    assert answer.status_code == 403
    assert SECRET_PARAMETER not in answer.text
    assert {request.method for request in world.prefect.requests if "filter" not in request.url.path} <= {"GET"}


def test_owner_that_is_kept_is_not_taken_for_another_satellites(world: World) -> None:
    async def both(client: httpx.AsyncClient, _: Gateway) -> list[int]:
        auths = (AUTH, ("robot-other", "secret-of-other"), AUTH, ("robot-other", "secret-of-other"))
        return [(await client.get(f"/flow_runs/{RUN}", auth=auth)).status_code for auth in auths]

    assert world.run(both) == [200, 403, 200, 403]


def test_denied_call_is_logged_without_its_body(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    world.ask("POST", f"/flow_runs/{FOREIGN_RUN}/set_state", json={"state": {"type": "X", "message": "in the body"}})

    assert "call denied satellite=mine method=POST path=/flow_runs/{id}/set_state" in caplog.text
    assert "in the body" not in caplog.text
    assert AUTH[1] not in caplog.text


# -- the short question


@pytest.mark.parametrize(("seconds", "status"), [(60, 204), (200, 200), (999_999, 200)], ids=["not yet", "due", "far"])
def test_short_question_is_answered_by_the_shared_look_alone(world: World, seconds: int, status: int) -> None:
    world.prefect.due = [due_in(MINE, 120), due_in("satellite-other", 10)]

    answer = world.ask("POST", f"/work_pools/{MINE}/due/{seconds}")

    assert answer.status_code == status
    assert world.prefect.paths() == ["/flow_runs/filter"]


def test_short_question_with_nothing_due_is_answered_in_as_few_bytes_as_can_be(world: World) -> None:
    answer = world.ask("POST", f"/work_pools/{MINE}/due/60")

    assert (answer.status_code, dict(answer.headers), answer.content) == (204, {}, b"")


def test_short_question_that_nobody_can_answer_is_maintenance(world: World) -> None:
    world.prefect.is_down = True

    assert world.ask("POST", f"/work_pools/{MINE}/due/60").status_code == 503


# -- what is passed on


def test_headers_of_a_site_do_not_reach_prefect_and_its_password_does_not_reach_the_site(world: World) -> None:
    headers = {"Cookie": "a=b", "X-Forwarded-For": "10.0.0.1", "X-Prefect-Api-Version": "9", "Host": "evil.test"}

    answer = world.ask("GET", f"/flow_runs/{RUN}", headers=headers)

    sent = world.prefect.requests[-1].headers
    assert sent["Authorization"] == httpx.BasicAuth("admin", "centre-secret")._auth_header
    assert not {"cookie", "x-forwarded-for", "x-prefect-api-version"} & set(sent)
    assert sent["Host"] == "prefect.test"
    assert "centre-secret" not in str(answer.headers) + answer.text


@pytest.mark.parametrize(
    ("agent", "sent"),
    [("prefect/3.8.8 (API 0.8.4)", "prefect/3.8.8 (API 0.8.4)"), ("curl/8", "python-httpx/0.28.1")],
)
def test_version_of_prefects_client_is_passed_on_since_places_of_old_ones_are_taken(
    world: World, agent: str, sent: str
) -> None:
    world.ask("POST", f"/flow_runs/{RUN}/set_state", json={"state": {"type": "RUNNING"}}, headers={"User-Agent": agent})

    assert world.prefect.requests[-1].headers["User-Agent"] == sent


HOSTILE: list[dict[str, Any]] = [
    {
        "content": b'{"state":{"type":"RUNNING"},"state":{"type":"FAILED"}}',
        "headers": {"Content-Type": "application/json"},
    },
    {"content": b"{}", "headers": {"Content-Type": "application/json", "Content-Encoding": "deflate"}},
    {"content": b'{"state":{"type":"RUNNING"}}', "headers": {"Content-Type": "text/plain"}},
    {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}},
    {"content": b'"' + b"a" * 5_000_000 + b'"', "headers": {"Content-Type": "application/json"}},
    {"params": {"a": "b"}, "json": {"state": {"type": "RUNNING"}}},
]


@pytest.mark.parametrize("request_", HOSTILE, ids=["key twice", "encoded", "no JSON", "deep", "large", "query"])
def test_request_that_could_be_read_in_two_ways_is_refused(world: World, request_: dict[str, Any]) -> None:
    answer = world.ask("POST", f"/flow_runs/{RUN}/set_state", **request_)

    assert answer.status_code == 403
    assert world.prefect.requests == []


@pytest.mark.parametrize("auth", [None, ("robot-mine", "wrong"), ("robot-other", "secret-of-mine"), ("", "")])
def test_call_without_a_good_credential_is_401(world: World, auth: tuple[str, str] | None) -> None:
    assert world.ask("GET", "/health", auth=auth).status_code == 401
    assert world.counters.unauthenticated == 1


def test_flood_of_wrong_secrets_is_429_and_starves_nobody(world: World) -> None:
    async def flood(client: httpx.AsyncClient, _: Gateway) -> tuple[int, int]:
        wrong = [await client.get("/health", auth=("robot-mine", f"wrong-{number}")) for number in range(70)]
        right = await client.get("/health", auth=AUTH)
        return wrong[-1].status_code, right.status_code

    assert world.run(flood) == (429, 200)


def test_revocation_in_this_process_is_effective_at_once(world: World) -> None:
    async def revoke(client: httpx.AsyncClient, _: Gateway) -> list[int]:
        before = await client.get("/health", auth=AUTH)
        with world.factory.begin() as session:
            session.query(Credential).filter(Credential.username == AUTH[0]).delete()
            bump(session)
        return [before.status_code, (await client.get("/health", auth=AUTH)).status_code]

    assert world.run(revoke) == [200, 401]


# -- Prefect away


@pytest.mark.parametrize("path", [f"/flow_runs/{RUN}", f"/work_pools/{MINE}", "/admin/version"])
def test_prefect_away_is_maintenance(world: World, path: str) -> None:
    world.prefect.is_down = True

    answer = world.ask("GET", path)

    assert (answer.status_code, answer.headers["Prefect-Maintenance"], answer.headers["Retry-After"]) == (
        503,
        "true",
        "5",
    )


def test_poll_is_never_told_that_nothing_is_due_by_a_look_that_failed(world: World) -> None:
    world.prefect.is_down = True

    assert world.ask("POST", POLL, json=poll_body()).status_code == 503


# -- idle fleets


def test_poll_of_a_pool_with_nothing_due_is_answered_from_memory(world: World) -> None:
    world.prefect.due = [due_in(OTHERS, 1), due_in(MINE, 60)]

    answer = world.ask("POST", POLL, json=poll_body(10))

    assert (answer.json(), world.prefect.paths()) == ([], ["/flow_runs/filter"])


@pytest.mark.parametrize("seconds", [-3600, 5], ids=["late", "soon"])
def test_poll_of_a_pool_with_something_due_is_passed_on(world: World, seconds: float) -> None:
    world.prefect.due = [due_in(MINE, seconds)]

    world.ask("POST", POLL, json=poll_body(10))

    assert world.prefect.paths() == ["/flow_runs/filter", POLL]


def test_poll_of_a_site_whose_clock_is_behind_finds_what_is_due_by_the_centres(world: World) -> None:
    world.prefect.due = [due_in(MINE, -60)]

    world.ask("POST", POLL, json=poll_body(-600))

    asked = datetime.fromisoformat(json.loads(world.prefect.requests[-1].content)["scheduled_before"])
    assert world.prefect.paths() == ["/flow_runs/filter", POLL]
    assert abs(asked - datetime.now(UTC)) < timedelta(seconds=30)


def test_run_made_a_moment_ago_is_found_by_the_next_look(world: World) -> None:
    async def twice(client: httpx.AsyncClient, _: Gateway) -> None:
        await client.post(POLL, json=poll_body(), auth=AUTH)
        world.prefect.due = [due_in(MINE, 0)]
        world.monotonic += 3.1
        await client.post(POLL, json=poll_body(), auth=AUTH)

    world.run(twice)

    assert world.prefect.paths()[-1] == POLL


def test_due_runs_of_many_pages_are_all_seen(world: World) -> None:
    world.prefect.due = [due_in(f"satellite-{number}", -1) for number in range(450)] + [due_in(MINE, 0)]

    world.ask("POST", POLL, json=poll_body())

    assert world.prefect.paths()[-1] == POLL


def test_look_that_did_not_see_everything_answers_nobody(world: World) -> None:
    world.prefect.due = [due_in(f"satellite-{number}", -1) for number in range(160 * 60 + 200)]

    world.ask("POST", POLL, json=poll_body())

    assert world.prefect.paths()[-1] == POLL


def test_calls_to_prefect_do_not_grow_with_idle_satellites(world: World) -> None:
    satellites = 1000
    with world.factory.begin() as session:
        for number in range(satellites):
            enroll(session, f"idle-{number}")

    async def minute(client: httpx.AsyncClient, _: Gateway) -> int:
        async def poll(number: int) -> int:
            name = f"idle-{number}"
            answer = await client.post(
                f"/work_pools/satellite-{name}/get_scheduled_flow_runs",
                json=poll_body(60),
                auth=(f"robot-{name}", f"secret-of-{name}"),
            )
            return answer.status_code

        statuses = set()
        for second in range(60):  # each satellite once a minute, spread over it
            world.monotonic += 1
            mine = range(second * satellites // 60, (second + 1) * satellites // 60)
            statuses |= set(await asyncio.gather(*(poll(number) for number in mine)))
        assert statuses == {200}
        return int(world.counters.calls_to_prefect)

    assert world.run(minute) <= 20


def test_heartbeats_reach_prefect_within_a_budget_and_first_ones_before_others(world: World) -> None:
    async def beat(client: httpx.AsyncClient, _: Gateway) -> list[int]:
        path, body = f"/work_pools/{MINE}/workers/heartbeat", {"name": MINE}
        statuses = {(await client.post(path, json=body, auth=AUTH)).status_code for _ in range(100)}
        other = {"name": OTHERS}
        await client.post(
            f"/work_pools/{OTHERS}/workers/heartbeat", json=other, auth=("robot-other", "secret-of-other")
        )
        return sorted(statuses)

    assert world.run(beat) == [200, 204]
    assert world.prefect.paths()[-1] == f"/work_pools/{OTHERS}/workers/heartbeat"
    assert len(world.prefect.requests) <= 31


def test_pool_is_asked_for_once_in_a_while(world: World) -> None:
    async def again(client: httpx.AsyncClient, _: Gateway) -> list[Any]:
        return [(await client.get(f"/work_pools/{MINE}", auth=AUTH)).json() for _ in range(10)]

    assert world.run(again) == [{"id": RUN, "name": MINE}] * 10
    assert len(world.prefect.requests) == 1


def test_call_is_a_sign_of_life_that_is_written_together(world: World) -> None:
    async def call(client: httpx.AsyncClient, gateway: Gateway) -> None:
        await client.get("/health", auth=AUTH)
        await gateway.seen.flush()

    world.run(call)

    with world.factory() as session:
        seen = {row.name: row.last_seen for row in session.query(Satellite)}
    assert seen["mine"] is not None
    assert seen["other"] is None


# -- events


def task_event(task: str, run: str) -> dict[str, Any]:
    return {
        "event": "prefect.task-run.Completed",
        "id": RUN,
        "occurred": "2026-01-01T00:00:00Z",
        "resource": {"prefect.resource.id": f"prefect.task-run.{task}"},
        "related": [{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}],
        "payload": {"task_run": {"task_key": "a", "dynamic_key": "0"}, "validated_state": {"type": "COMPLETED"}},
    }


def test_events_about_others_are_dropped_and_own_ones_passed_on(world: World) -> None:
    events = [task_event(TASK, RUN), task_event(FOREIGN_TASK, RUN), task_event(LEASE, FOREIGN_RUN), "nonsense"]

    answer = world.ask("POST", "/events", json=events)

    sent = json.loads(world.prefect.requests[-1].content)
    assert answer.status_code == 204
    assert [event["resource"]["prefect.resource.id"] for event in sent] == [f"prefect.task-run.{TASK}"]
    assert (world.counters.events_passed, world.counters.events_dropped) == (1, 3)
