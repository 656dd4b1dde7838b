"""The fake Harbor's pages about itself, its projects and its robots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse, Response

from tests.fakes.harbor_accounts import Caller, Refused
from tests.fakes.harbor_wire import answer, body_of, created, filters, page, require

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.fakes.harbor import FakeHarbor
    from tests.fakes.harbor_wire import Routes

COMPONENTS = ("core", "database", "jobservice", "portal", "redis", "registry", "registryctl")


async def _ping(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    return PlainTextResponse("Pong")


async def _health(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    status = "unhealthy" if fake.is_unhealthy else "healthy"  # always with 200
    components = [{"name": name, "status": status if name == "redis" else "healthy"} for name in COMPONENTS]
    return fake.json({"status": status, "components": components})


async def _system(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    document: dict[str, Any] = {"auth_mode": "db_auth", "banner_message": "", "self_registration": False}
    if caller.is_known:
        document |= {
            "current_time": fake.accounts.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "external_url": str(request.base_url).rstrip("/"),
            "harbor_version": "v2.16.0-c50c7ddd",
            "read_only": False,
            "registry_url": request.url.netloc,
        }
    return answer(document)


async def _current_user(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    if caller.robot:
        raise Refused(412, "PRECONDITION", "get current user not available for security context: robot")
    if not caller.is_admin:
        raise Refused(401, "UNAUTHORIZED", "unauthorized")
    return answer({"user_id": 1, "username": "admin", "sysadmin_flag": True})


async def _list_projects(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    name = filters(request).get("name")
    shown = [each for each in sorted(fake.accounts.projects) if name in {None, each} and _sees(fake, caller, each)]
    return page(fake, request, [_project(fake, each) for each in shown])


async def _head_project(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "project", "list")
    return Response(status_code=200 if request.query_params["project_name"] in fake.accounts.projects else 404)


async def _add_project(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "project", "create")
    body = await body_of(request)
    if body["project_name"] in fake.accounts.projects:
        raise Refused(409, "CONFLICT", f"The project named {body['project_name']} already exists")
    metadata = body.get("metadata") or {}
    fake.accounts.projects[body["project_name"]] = metadata.get("public", str(body.get("public"))).lower() == "true"
    return created("/projects", fake.accounts.project_id(body["project_name"]))


async def _show_project(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    name = request.path_params["name"]
    if not caller.is_known and not fake.accounts.projects.get(name):
        raise Refused(401, "UNAUTHORIZED", "unauthorized")
    if name not in fake.accounts.projects:
        raise Refused(403, "FORBIDDEN", "forbidden") if caller.robot else _no_project(name)
    if caller.robot and not caller.robot.holds("project", name, "project", "read"):
        raise Refused(403, "FORBIDDEN", "forbidden")
    return fake.json(_project(fake, name))


async def _change_project(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    if not caller.is_admin:
        raise Refused(403, "FORBIDDEN", "forbidden")
    body = await body_of(request)
    fake.accounts.projects[request.path_params["name"]] = body["metadata"]["public"] == "true"
    return Response(status_code=200)


async def _drop_project(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    name = request.path_params["name"]
    if not caller.is_admin:
        raise Refused(403, "FORBIDDEN", "forbidden")
    if name not in fake.accounts.projects:
        raise _no_project(name)
    if fake.content.repositories(name):
        raise Refused(412, "PRECONDITION", f"the project contains repositories, can not be deleted: {name}")
    del fake.accounts.projects[name]
    return Response(status_code=200)


async def _list_robots(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "robot", "list")
    name = filters(request).get("name")  # the short name; any other key is ignored: everything comes
    robots = [robot for robot in fake.accounts.robots.values() if name in {None, robot.name}]
    return page(fake, request, [robot.document(fake.accounts.prefix) for robot in robots])


async def _add_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "robot", "create")
    robot = fake.accounts.add_robot(caller, await body_of(request))
    shown = robot.document(fake.accounts.prefix)
    document = {key: shown[key] for key in ("creation_time", "expires_at", "id", "name")}
    return answer(document | {"secret": robot.secret}, 201, {"Location": f"/api/v2.0/robots/{robot.id}"})


async def _show_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "robot", "read")
    return fake.json(fake.accounts.robot(request.path_params["id"]).document(fake.accounts.prefix))


async def _change_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "robot", "update")  # not grantable: robots never may
    fake.accounts.change_robot(fake.accounts.robot(request.path_params["id"]), await body_of(request))
    return Response(status_code=200)


async def _patch_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "robot", "update")
    robot = fake.accounts.robot(request.path_params["id"])
    return fake.json(fake.accounts.set_secret(robot, await body_of(request)))


async def _drop_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    require(caller, "robot", "delete")
    del fake.accounts.robots[fake.accounts.robot(request.path_params["id"]).id]
    return Response(status_code=200)


def _sees(fake: FakeHarbor, caller: Caller, project: str) -> bool:
    if caller.is_admin or fake.accounts.projects[project]:
        return True
    namespaces = {permission["namespace"] for permission in (caller.robot.permissions if caller.robot else [])}
    return bool(namespaces & {project, "*"})


def _no_project(name: str) -> Refused:
    return Refused(404, "NOT_FOUND", f"project {name} not found")


def _project(fake: FakeHarbor, name: str) -> dict[str, Any]:
    public = "true" if fake.accounts.projects[name] else "false"
    count = len(fake.content.repositories(name))
    number = fake.accounts.project_id(name)
    return {
        "name": name,
        "project_id": number,
        "owner_name": "admin",
        "repo_count": count,
        "metadata": {"public": public},
    }


ROUTES: Routes = [
    ("/ping", {"GET": _ping}),
    ("/health", {"GET": _health}),
    ("/systeminfo", {"GET": _system}),
    ("/users/current", {"GET": _current_user}),
    ("/projects", {"GET": _list_projects, "HEAD": _head_project, "POST": _add_project}),
    ("/projects/{name}", {"GET": _show_project, "PUT": _change_project, "DELETE": _drop_project}),
    ("/robots", {"GET": _list_robots, "POST": _add_robot}),
    ("/robots/{id:int}", {"GET": _show_robot, "PUT": _change_robot, "PATCH": _patch_robot, "DELETE": _drop_robot}),
]
