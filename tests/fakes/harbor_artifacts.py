"""The fake Harbor's pages of repositories, artifacts, tags and labels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.responses import Response

from tests.fakes.harbor_accounts import Caller, Refused
from tests.fakes.harbor_wire import answer, body_of, created, filters, page, require_in

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.fakes.harbor import FakeHarbor
    from tests.fakes.harbor_content import FakeArtifact
    from tests.fakes.harbor_wire import Routes

_REFERENCE = r"(?P<reference>[^/]+)"
_REPOSITORY = re.compile(
    rf"(?P<repository>.+?)(?P<artifacts>/artifacts(/{_REFERENCE}(/(?P<kind>tags|labels|accessories)(/(?P<item>[^/]+))?)?)?)?"
)


async def _repositories(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    project = request.path_params["project"]
    require_in(fake, caller, project, "repository", "list")
    names = fake.content.repositories(project)
    number = fake.accounts.project_id(project)
    return page(fake, request, [_repository(fake, name, number, at) for at, name in enumerate(names, 1)])


async def _below(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    """Everything below a repository; its name may hold slashes, quoted once or twice."""
    project, rest = request.path_params["project"], unquote(request.path_params["rest"])
    parts = _REPOSITORY.fullmatch(rest)
    assert parts is not None
    repository = f"{project}/{parts['repository']}"
    if parts["artifacts"] is None:
        return await _one_repository(fake, request, caller, project, repository)
    if parts["reference"] is None:
        require_in(fake, caller, project, "artifact", "list")
        return _artifacts(fake, request, project, repository)
    resource, action = _right(request.method, parts["kind"])
    require_in(fake, caller, project, resource, action)
    one = _find(fake, repository, parts["reference"])
    match parts["kind"]:
        case "tags":
            return await _tags(fake, request, one, parts["item"])
        case "labels":
            return await _labels(fake, request, one, parts["item"])
        case "accessories":
            return _accessories(fake, request, one)
    return await _one_artifact(fake, request, project, one)


async def _one_artifact(fake: FakeHarbor, request: Request, project: str, one: FakeArtifact) -> Response:
    if request.method == "DELETE":
        await fake.delete_artifact(one)
        return Response(status_code=200)
    return answer(_document(fake, request, project, one))


def _accessories(fake: FakeHarbor, request: Request, one: FakeArtifact) -> Response:
    found = [
        {"digest": each.digest, "type": "signature.cosign", "size": len(each.raw), "id": each.id}
        for each in fake.content.referrers(one)
    ]
    return page(fake, request, found)


async def _one_repository(
    fake: FakeHarbor, request: Request, caller: Caller, project: str, repository: str
) -> Response:
    require_in(fake, caller, project, "repository", "delete" if request.method == "DELETE" else "read")
    held = fake.content.all_of(repository)
    if not held:
        raise Refused(404, "NOT_FOUND", f"repository {repository} not found")
    if request.method != "DELETE":
        return answer(_repository(fake, repository, fake.accounts.project_id(project), 1))
    children = {digest for one in held for digest in one.children}
    for one in held:  # a child goes with its index, and no event tells of it
        await fake.delete_artifact(one, is_told=one.digest not in children and not one.is_referrer, is_forced=True)
    return Response(status_code=200)


def _artifacts(fake: FakeHarbor, request: Request, project: str, repository: str) -> Response:
    if not fake.content.all_of(repository):
        raise Refused(404, "NOT_FOUND", f"repository {repository} not found")
    wanted = filters(request)
    found = [one for one in fake.content.listed(repository) if _matches(one, wanted)]
    if request.query_params.get("sort") == "push_time":
        found.reverse()
    return page(fake, request, [_document(fake, request, project, one) for one in found])


async def _tags(fake: FakeHarbor, request: Request, one: FakeArtifact, item: str | None) -> Response:
    if request.method == "GET":
        return page(fake, request, list(reversed(one.tags)))
    if request.method == "POST":
        name = (await body_of(request))["name"]
        if name in one.tag_names:
            raise Refused(409, "CONFLICT", f"tag {name} already exist")
        await fake.add_tag(one, name)
        return Response(status_code=201)
    if item not in one.tag_names:
        raise Refused(404, "NOT_FOUND", f"tag {item} attached to artifact {one.id} not found")
    await fake.delete_tag(one, item)
    return Response(status_code=200)


async def _labels(fake: FakeHarbor, request: Request, one: FakeArtifact, item: str | None) -> Response:
    number = int(item or (await body_of(request)).get("id", 0))
    if number not in fake.content.labels:
        raise Refused(404, "NOT_FOUND", f"label {number} not found")
    if request.method == "POST":
        if number in one.labels:
            raise Refused(409, "CONFLICT", f"label {number} is already added to the artifact {one.id}")
        one.labels.append(number)  # no webhook and no replication rule hears of it
    elif number not in one.labels:
        raise Refused(404, "NOT_FOUND", f"reference {number} not found")
    else:
        one.labels.remove(number)
    return Response(status_code=200)


async def _all_labels(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    if not caller.is_known:
        raise Refused(401, "UNAUTHORIZED", "unauthorized")
    if request.method == "POST":
        return created("/labels", fake.content.add_label(await body_of(request), fake.accounts.clock()))
    scope = request.query_params.get("scope")
    if scope not in {"g", "p"}:
        raise Refused(400, "BAD_REQUEST", "bad request: invalid scope")
    project, name = request.query_params.get("project_id"), request.query_params.get("name", "")
    found = [
        label
        for label in fake.content.labels.values()
        if label["scope"] == scope and (scope == "g" or str(label["project_id"]) == project) and name in label["name"]
    ]
    return page(fake, request, found)


def _matches(one: FakeArtifact, wanted: dict[str, str]) -> bool:
    tags, labels = wanted.get("tags"), wanted.get("labels")
    if tags is not None and not _tags_match(one.tag_names, tags):
        return False
    if labels is not None and not {int(number) for number in re.findall(r"\d+", labels)} <= set(one.labels):
        return False
    digest = wanted.get("digest", "")
    return digest.lstrip("~") in one.digest  # keys that are not known here are ignored, as by Harbor


def _tags_match(names: list[str], value: str) -> bool:
    match value:
        case "*":
            return bool(names)
        case "nil":
            return not names
    if value.startswith("~"):
        return any(value[1:] in name for name in names)
    return value in names


def _find(fake: FakeHarbor, repository: str, reference: str) -> FakeArtifact:
    one = fake.content.find(repository, reference)
    if one is None:
        raise Refused(404, "NOT_FOUND", f"artifact {repository}:{reference} not found")
    return one


def _right(method: str, kind: str | None) -> tuple[str, str]:
    match kind:
        case "tags":
            return "tag", {"GET": "list", "POST": "create", "DELETE": "delete"}[method]
        case "labels":
            return "artifact-label", {"POST": "create", "DELETE": "delete"}.get(method, "create")
        case "accessories":
            return "accessory", "list"
    return "artifact", "delete" if method == "DELETE" else "read"


def _document(fake: FakeHarbor, request: Request, project: str, one: FakeArtifact) -> dict[str, Any]:
    query = request.query_params
    return fake.content.document(
        one,
        fake.accounts.project_id(project),
        with_tag=query.get("with_tag", "true") == "true",
        with_label=query.get("with_label", "false") == "true",
    )


def _repository(fake: FakeHarbor, name: str, project_id: int, number: int) -> dict[str, Any]:
    return {"id": number, "name": name, "project_id": project_id, "artifact_count": len(fake.content.listed(name))}


ROUTES: Routes = [
    ("/labels", {"GET": _all_labels, "POST": _all_labels}),
    ("/projects/{project}/repositories", {"GET": _repositories}),
    ("/projects/{project}/repositories/{rest:path}", {"GET": _below, "POST": _below, "DELETE": _below}),
]
