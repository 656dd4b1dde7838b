"""The fake Harbor's webhooks: hints that come late, twice, out of order, or not at all."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
from starlette.responses import Response

from tests.fakes.harbor_accounts import Caller, Refused
from tests.fakes.harbor_content import stamp
from tests.fakes.harbor_wire import body_of, created, page, require_in, without_false

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.requests import Request

    from tests.fakes.harbor import FakeHarbor
    from tests.fakes.harbor_wire import Routes

EVENT_TYPES = {
    *("PUSH_ARTIFACT", "PULL_ARTIFACT", "DELETE_ARTIFACT", "REPLICATION", "QUOTA_EXCEED", "QUOTA_WARNING"),
    *("TAG_RETENTION", "SCANNING_FAILED", "SCANNING_STOPPED", "SCANNING_COMPLETED"),
}
CLOUD_TYPES = {
    "PUSH_ARTIFACT": "harbor.artifact.pushed",
    "PULL_ARTIFACT": "harbor.artifact.pulled",
    "DELETE_ARTIFACT": "harbor.artifact.deleted",
    "REPLICATION": "harbor.replication.status.changed",
}


@dataclass
class Hooks:
    policies: dict[int, dict[str, Any]] = field(default_factory=dict)
    executions: list[dict[str, Any]] = field(default_factory=list)
    next_id: int = 1
    delay_seconds: float = 0.02  # the real one: 0.5 to 5.1
    retry_seconds: tuple[float, ...] = (0.05, 0.1)  # the real one: about 45, then 95; three attempts in all
    copies: int = 1  # 2: every event comes twice
    lost: int = 0  # so many events are not sent at all
    is_reordering: bool = False
    _sent: int = 0

    def tell(self, fake: FakeHarbor, project: str, event_type: str, data: dict[str, Any]) -> None:
        """Send an event to every policy of the project that wants it; nobody waits for it."""
        if self.lost > 0:
            self.lost -= 1
            return
        now, event_id = fake.accounts.clock(), str(uuid.uuid4())
        for policy in list(self.policies.values()):
            if policy["project"] != project or not policy.get("enabled") or event_type not in policy["event_types"]:
                continue
            self._sent += 1
            delay = self.delay_seconds + (0.2 if self.is_reordering and self._sent % 2 else 0.0)
            for target in policy["targets"]:
                payload = _payload(policy, target, event_type, data, (now, event_id))
                for _ in range(self.copies):
                    fake.later(self._deliver(policy["id"], event_type, target, payload, delay))

    async def _deliver(
        self, policy_id: int, event_type: str, target: dict[str, Any], payload: dict[str, Any], delay: float
    ) -> None:
        execution = {"id": len(self.executions) + 1, "policy_id": policy_id, "vendor_type": "WEBHOOK"}
        execution |= {"status": "Running", "metrics": {"task_count": 1}, "extra_attrs": {"event_type": event_type}}
        self.executions.append(execution)
        is_cloud = target.get("payload_format") == "CloudEvents"
        headers = {"Content-Type": "application/cloudevents+json" if is_cloud else "application/json"}
        headers["User-Agent"] = "Go-http-client/1.1"
        if target.get("auth_header"):
            headers["Authorization"] = target["auth_header"]  # sent verbatim: there is no signature
        for run, pause in enumerate((delay, *self.retry_seconds), 1):
            await asyncio.sleep(pause)
            execution["run_count"] = run
            try:
                async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
                    answer = await client.post(target["address"], json=payload, headers=headers)
            except httpx.HTTPError:
                continue
            if answer.is_success:
                execution["status"] = "Success"
                return
        execution["status"] = "Error"


def artifact_data(repository: str, digest: str, tag: str, host: str, now: datetime) -> dict[str, Any]:
    """Return what an event says of an artifact; without a tag the digest stands in its place."""
    project, _, name = repository.partition("/")
    separator = ":" if tag else "@"
    resource = {
        "digest": digest,
        "tag": tag or digest,
        "resource_url": f"{host}/{repository}{separator}{tag or digest}",
    }
    seconds = int(now.timestamp())
    named = {"name": name, "namespace": project, "repo_full_name": repository, "repo_type": "private"}
    return {"resources": [resource], "repository": {"date_created": seconds, **named}}


def _payload(
    policy: dict[str, Any], target: dict[str, Any], event_type: str, data: dict[str, Any], sent: tuple[datetime, str]
) -> dict[str, Any]:
    now, event_id = sent
    if target.get("payload_format") != "CloudEvents":
        return {"type": event_type, "occur_at": int(now.timestamp()), "operator": "admin", "event_data": data}
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": f"/projects/{policy['project_id']}/webhook/policies/{policy['id']}",
        "type": CLOUD_TYPES[event_type],
        "datacontenttype": "application/json",
        "time": stamp(now),
        "data": data,
        "operator": "admin",
        "requestid": str(uuid.uuid4()),
    }


async def _policies(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    project = request.path_params["project"]
    require_in(fake, caller, project, "notification-policy", "create" if request.method == "POST" else "list")
    hooks = fake.hooks
    mine = [policy for policy in hooks.policies.values() if policy["project"] == project]
    if request.method == "GET":
        return page(fake, request, [_shown(policy) for policy in reversed(mine)])
    body = await body_of(request)
    if any(policy["name"] == body.get("name") for policy in mine):
        raise Refused(409, "CONFLICT", f"notification policy named {body['name']} already exists")
    if not body.get("targets") or not set(body.get("event_types") or ["?"]) <= EVENT_TYPES:
        raise Refused(400, "BAD_REQUEST", "empty notification target or unsupported event type")
    number, hooks.next_id = hooks.next_id, hooks.next_id + 1
    now = stamp(fake.accounts.clock())
    own = {"id": number, "project": project, "project_id": fake.accounts.project_id(project)}
    hooks.policies[number] = body | own | {"creation_time": now, "update_time": now}
    return created(f"/projects/{project}/webhook/policies", number)


async def _one_policy(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    project, number = request.path_params["project"], request.path_params["id"]
    require_in(fake, caller, project, "notification-policy", "delete" if request.method == "DELETE" else "read")
    policy = fake.hooks.policies.get(number)
    if policy is None or policy["project"] != project:
        raise Refused(404, "NOT_FOUND", f"notification policy {number} not found")
    if request.method == "DELETE":
        del fake.hooks.policies[number]
        return Response(status_code=200)
    return fake.json(_shown(policy))


async def _executions(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require_in(fake, caller, request.path_params["project"], "notification-policy", "list")
    number = request.path_params["id"]
    return page(fake, request, [one for one in reversed(fake.hooks.executions) if one["policy_id"] == number])


def _shown(policy: dict[str, Any]) -> dict[str, Any]:
    targets = [without_false(target) for target in policy["targets"]]
    return without_false({key: value for key, value in policy.items() if key != "project"} | {"targets": targets})


_ROOT = "/projects/{project}/webhook/policies"
ROUTES: Routes = [
    (_ROOT, {"GET": _policies, "POST": _policies}),
    (_ROOT + "/{id:int}", {"GET": _one_policy, "DELETE": _one_policy}),
    (_ROOT + "/{id:int}/executions", {"GET": _executions}),
]
