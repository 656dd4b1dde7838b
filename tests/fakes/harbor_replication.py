"""The fake Harbor's endpoints, replication rules and their executions."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
from starlette.responses import Response

from tests.fakes.harbor_accounts import Caller, Refused
from tests.fakes.harbor_content import stamp
from tests.fakes.harbor_sending import SendingError, is_healthy, open_target, remove, send
from tests.fakes.harbor_wire import body_of, created, filters, page, require, without_false

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

    from tests.fakes.harbor import FakeHarbor
    from tests.fakes.harbor_content import FakeArtifact
    from tests.fakes.harbor_wire import Routes

TYPES = {"docker-registry", "harbor", "docker-hub", "aws-ecr", "azure-acr", "google-gcr", "github-ghcr"}
LOCAL = {"id": 0, "name": "Local", "type": "harbor", "status": "healthy", "insecure": True}


@dataclass
class Replication:
    endpoints: dict[int, dict[str, Any]] = field(default_factory=dict)
    rules: dict[int, dict[str, Any]] = field(default_factory=dict)
    executions: dict[int, dict[str, Any]] = field(default_factory=dict)
    next_id: int = 1
    status_lag_seconds: float = 0.1  # after the work is done; the real one: 10 to 29
    lost: int = 0  # so many events start no rule

    def number(self) -> int:
        number, self.next_id = self.next_id, self.next_id + 1
        return number

    def changed(self, fake: FakeHarbor, one: FakeArtifact, tags: list[str], *, is_deleted: bool) -> None:
        """Start every event-based rule that matches; what is done to labels starts none."""
        if self.lost > 0:
            self.lost -= 1
            return
        for rule in list(self.rules.values()):
            if not rule.get("enabled") or rule["trigger"]["type"] != "event_based":
                continue
            matching = matching_tags(fake, rule, one, tags)
            if matching and (rule["deletion"] or not is_deleted):
                fake.later(self.run(fake, rule, [(one, matching)], "event_based", is_deletion=is_deleted))

    async def run(
        self,
        fake: FakeHarbor,
        rule: dict[str, Any],
        work: list[tuple[FakeArtifact, list[str]]],
        trigger: str,
        *,
        is_deletion: bool = False,
        number: int = 0,
    ) -> None:
        execution = self.executions.setdefault(number, {}) if number else self.start(fake, rule, trigger)
        execution["total"] = len(work)
        endpoint = self.endpoints[rule["dest_registry"]["id"]]
        try:
            async with open_target(endpoint) as client:
                for one, tags in work:
                    target = _target(rule, one.repository)
                    action = remove(client, one, target, tags) if is_deletion else send(fake, client, one, target, tags)
                    await action
            status = "Succeed"
        except (SendingError, httpx.HTTPError) as error:
            status, execution["status_text"] = "Failed", str(error)
        self._tell(fake, work, status)
        await asyncio.sleep(self.status_lag_seconds)  # the work is at the target long before Harbor says so
        counts = {"succeed": len(work)} if status == "Succeed" else {"failed": len(work)}
        text = {} if work else {"status_text": "no resources need to be replicated"}
        execution |= {"status": status, "in_progress": 0, "end_time": stamp(fake.accounts.clock()), **counts, **text}

    def start(self, fake: FakeHarbor, rule: dict[str, Any], trigger: str) -> dict[str, Any]:
        number = self.number()
        execution = {
            "id": number,
            "policy_id": rule["id"],
            "status": "InProgress",
            "status_text": "",
            "trigger": trigger,
        }
        execution |= dict.fromkeys(("failed", "succeed", "stopped", "total"), 0) | {"in_progress": 1}
        execution["start_time"] = stamp(fake.accounts.clock())
        self.executions[number] = execution
        return execution

    def _tell(self, fake: FakeHarbor, work: list[tuple[FakeArtifact, list[str]]], status: str) -> None:
        job_status = "Success" if status == "Succeed" else "Error"
        for project in {one.repository.partition("/")[0] for one, _ in work}:
            replication = {"job_status": job_status, "artifact_type": "artifact", "trigger_type": "EVENT_BASED"}
            fake.hooks.tell(fake, project, "REPLICATION", {"replication": replication})


def matching_tags(fake: FakeHarbor, rule: dict[str, Any], one: FakeArtifact, tags: Iterable[str]) -> list[str]:
    """Return those of an artifact's tags that a rule's filters let through."""
    found = list(tags)
    for each in rule.get("filters") or []:
        kind, value = each["type"], each.get("value")
        if kind == "name" and not re.fullmatch(_glob(value), one.repository):
            return []
        if kind == "tag":
            found = [tag for tag in found if re.fullmatch(_glob(value), tag)]
        if kind == "label" and not set(value) <= {fake.content.labels[number]["name"] for number in one.labels}:
            return []
    return found


def _glob(pattern: str) -> str:
    """Turn Harbor's pattern into a regular expression: ``**``, ``*``, ``?``, ``{a,b}``."""
    parts = {"**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(", "}": ")", ",": "|"}
    return "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|[*?{},])", pattern) if part)


def _target(rule: dict[str, Any], repository: str) -> str:
    namespace, count = rule.get("dest_namespace", ""), rule.get("dest_namespace_replace_count", -1)
    if not namespace:
        return repository
    parts = repository.split("/")
    rest = parts[-1:] if count < 0 else parts[min(count, len(parts) - 1) :]
    return "/".join([namespace, *rest])


async def _endpoints(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "registry", "create" if request.method == "POST" else "list")
    held = fake.replication.endpoints
    if request.method == "GET":
        name = filters(request).get("name")
        return page(fake, request, [_endpoint(one) for one in held.values() if name in {None, one["name"]}])
    body = await body_of(request)
    if body.get("type") not in TYPES:
        raise Refused(500, "UNKNOWN", "internal server error")
    if any(one["name"] == body["name"] for one in held.values()):
        raise Refused(409, "CONFLICT", f"registry {body['name']} already exists")
    if not await is_healthy(body):
        raise Refused(400, "BAD_REQUEST", "the registry is unhealthy")
    number = fake.replication.number()
    held[number] = body | {"id": number, "status": "healthy"}
    return created("/registries", number)


async def _one_endpoint(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    action = {"DELETE": "delete", "PUT": "update"}.get(request.method, "read")
    require(caller, "registry", action)
    number, held = request.path_params["id"], fake.replication.endpoints
    if number not in held:
        raise Refused(404, "NOT_FOUND", f"registry {number} not found")
    if request.method == "DELETE":
        if any(rule["dest_registry"]["id"] == number for rule in fake.replication.rules.values()):
            raise Refused(412, "PRECONDITION", f"the registry {number} is referenced by replication policies")
        del held[number]
    elif request.method == "PUT":
        body = await body_of(request)
        credential = {"type": "basic", "access_key": body["access_key"], "access_secret": body["access_secret"]}
        change = {key: body[key] for key in ("name", "url", "insecure")} | {"credential": credential}
        if not await is_healthy(held[number] | change):
            raise Refused(400, "BAD_REQUEST", "the registry is unhealthy")
        held[number] |= change
    else:
        return fake.json(_endpoint(held[number]))
    return Response(status_code=200)


async def _rules(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "replication-policy", "create" if request.method == "POST" else "list")
    held = fake.replication.rules
    if request.method == "GET":
        name = filters(request).get("name")
        return page(fake, request, [_rule(fake, one) for one in held.values() if name in {None, one["name"]}])
    body = await body_of(request)
    if any(one["name"] == body["name"] for one in held.values()):
        raise Refused(409, "CONFLICT", f"policy {body['name']} already exists")
    number = fake.replication.number()
    held[number] = _checked(fake, body) | {"id": number}
    return created("/replication/policies", number)


async def _one_rule(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    action = {"DELETE": "delete", "PUT": "update"}.get(request.method, "read")
    require(caller, "replication-policy", action)
    number, held = request.path_params["id"], fake.replication.rules
    if number not in held:
        raise Refused(404, "NOT_FOUND", f"replication policy {number} not found")
    if request.method == "DELETE":
        del held[number]
    elif request.method == "PUT":
        held[number] = _checked(fake, await body_of(request)) | {"id": number}
    else:
        return fake.json(_rule(fake, held[number]))
    return Response(status_code=200)


async def _executions(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "replication", "create" if request.method == "POST" else "list")
    if request.method == "GET":
        wanted = request.query_params.get("policy_id")
        found = [one for one in fake.replication.executions.values() if wanted in {None, str(one["policy_id"])}]
        return page(fake, request, list(reversed(found)))
    rule = fake.replication.rules.get((await body_of(request)).get("policy_id", 0))
    if rule is None:
        raise Refused(404, "NOT_FOUND", "replication policy not found")
    everything = (one for project in fake.accounts.projects for one in fake.all_listed(project))
    matching = ((one, matching_tags(fake, rule, one, one.tag_names)) for one in everything)
    work = [(one, tags) for one, tags in matching if tags]
    number = int(fake.replication.start(fake, rule, "manual")["id"])
    fake.later(fake.replication.run(fake, rule, work, "manual", number=number))
    return created("/replication/executions", number)


async def _one_execution(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "replication", "read")
    execution = fake.replication.executions.get(request.path_params["id"])
    if execution is None:
        raise Refused(404, "NOT_FOUND", "replication execution not found")
    return fake.json(execution)


def _checked(fake: FakeHarbor, body: dict[str, Any]) -> dict[str, Any]:
    trigger: dict[str, Any] = body.get("trigger") or {"type": "manual"}
    if trigger["type"] == "scheduled" and len(trigger["trigger_settings"]["cron"].split()) != 6:
        raise Refused(400, "BAD_REQUEST", "invalid cron: expected exactly 6 fields")
    if ("src_registry" in body) == ("dest_registry" in body):
        raise Refused(400, "BAD_REQUEST", "either src_registry or dest_registry should be empty and the other one set")
    if "dest_registry" in body and body["dest_registry"]["id"] not in fake.replication.endpoints:
        raise Refused(400, "BAD_REQUEST", "the destination registry does not exist")
    # Only the deprecated name is read.
    is_deleting = body.get("deletion") is True
    return body | {"trigger": trigger, "deletion": is_deleting, "replicate_deletion": is_deleting}


def _rule(fake: FakeHarbor, rule: dict[str, Any]) -> dict[str, Any]:
    target = fake.replication.endpoints[rule["dest_registry"]["id"]]
    return without_false(rule) | {"dest_registry": _endpoint(target), "src_registry": LOCAL, "speed": 0}


def _endpoint(endpoint: dict[str, Any]) -> dict[str, Any]:
    credential = dict(endpoint.get("credential") or {})
    if "access_secret" in credential:
        credential["access_secret"] = "*****"
    return without_false(endpoint) | {"credential": credential}


ROUTES: Routes = [
    ("/registries", {"GET": _endpoints, "POST": _endpoints}),
    ("/registries/{id:int}", {"GET": _one_endpoint, "PUT": _one_endpoint, "DELETE": _one_endpoint}),
    ("/replication/policies", {"GET": _rules, "POST": _rules}),
    ("/replication/policies/{id:int}", {"GET": _one_rule, "PUT": _one_rule, "DELETE": _one_rule}),
    ("/replication/executions", {"GET": _executions, "POST": _executions}),
    ("/replication/executions/{id:int}", {"GET": _one_execution}),
]
