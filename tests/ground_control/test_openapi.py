"""The API's document: complete, with examples that are true, and kept by what the API answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from pydantic import SecretStr
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from harbor_satellite.ground_control.api.app import AppOptions, create_app
from harbor_satellite.ground_control.api.openapi_examples import EXAMPLES
from harbor_satellite.ground_control.api.throttle import RateLimits, TokenBuckets
from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.people import api_tokens, users
from harbor_satellite.ground_control.satellites.sources import OciSource
from tests.fixtures_ground_control import ADMIN_PASSWORD, SOURCE_URL, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES_PER_OPERATION: Final = 5
SEED: Final = 5


def _document() -> dict[str, Any]:
    factory = make_session_factory(make_engine("sqlite:///never-opened.db"))
    document: dict[str, Any] = create_app(AppOptions(source_url=SOURCE_URL), factory, OciSource()).openapi()
    return document


DOCUMENT: Final = _document()
OPERATIONS: Final = [
    (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]


def _id(value: Any) -> str:
    return value if isinstance(value, str) else ""


# -- completeness -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=_id)
def test_operation_is_described(method: str, path: str, operation: dict[str, Any]) -> None:
    missing = [key for key in ("summary", "description", "tags") if not operation.get(key)]

    assert missing == []


def _bodies(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON schemas of the request's body and of the answers that are no errors."""
    places = {"request": operation.get("requestBody", {})} | {
        status: answer for status, answer in operation["responses"].items() if status.startswith("2")
    }
    for place, value in places.items():
        content = value.get("content", {}).get("application/json")
        if content is not None:
            yield place, content


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _has_example(content: dict[str, Any]) -> bool:
    if "example" in content or "examples" in content:
        return True
    schema = _resolved(content.get("schema", {}))
    if schema.get("type") == "array":
        return _has_example({"schema": schema["items"]})
    if "anyOf" in schema:
        return all(_has_example({"schema": part}) for part in schema["anyOf"] if part.get("type") != "null")
    # What has no fields of its own has nothing to show: {}, a string, null.
    return bool(schema.get("examples")) or not schema.get("properties")


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=_id)
def test_operation_has_examples(method: str, path: str, operation: dict[str, Any]) -> None:
    missing = [place for place, content in _bodies(operation) if not _has_example(content)]

    assert missing == [], f"{method} {path}: give the body's class an example in openapi_examples.py"


SHOWN: Final = [
    (name, example)
    for name, schema in DOCUMENT["components"]["schemas"].items()
    for example in schema.get("examples", ())
]


@pytest.mark.parametrize(("name", "example"), SHOWN, ids=_id)
def test_example_is_what_its_schema_says(name: str, example: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}

    jsonschema_rs.validate(schema, example)
    unknown = set(example) - set(DOCUMENT["components"]["schemas"][name].get("properties", example))
    assert unknown == set()


# -- what the API really answers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The app over a database with something in it; the client is the system administrator's, by API token."""
    url = f"sqlite:///{tmp_path_factory.mktemp('openapi') / 'ground-control.db'}"
    migrate(url)
    engine = make_engine(url)
    factory = make_session_factory(engine)
    now = datetime.now(UTC)
    with factory.begin() as session:
        users.ensure_first_user(session, SecretStr(ADMIN_PASSWORD), now)
        user = users.find_user(session, "admin")
        assert user is not None
        person = users.Principal(user.id, user.username, user.role)
        token = api_tokens.issue_token(session, person, "tests", days=1, role=None, now=now).token
    app = create_app(AppOptions(source_url=SOURCE_URL), factory, OciSource())
    object.__setattr__(app.state.context, "limits", RateLimits(people=TokenBuckets(burst=1e9, per_second=1e9)))
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"}
    with serve(app) as base, httpx.Client(base_url=base, headers=headers, timeout=30) as client:
        for path, body in (
            ("/api/groups/sync", {"group": "shops", "artifacts": [{"repository": "acme/app", "tag": ["v1"]}]}),
            ("/api/satellites", {"name": "edge-1", "groups": ["shops"]}),
            ("/api/users", {"username": "mara", "password": ADMIN_PASSWORD}),
        ):
            assert client.post(path, json=body).is_success
        yield client
    engine.dispose()


api: Final = schemathesis.openapi.from_dict(DOCUMENT, config=SchemathesisConfig(seed=SEED))
CHECKED: Final[list[CheckFunction]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@api.parametrize()
@settings(
    max_examples=EXAMPLES_PER_OPERATION,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
def test_api_answers_as_documented(case: schemathesis.Case, served: httpx.Client) -> None:
    case.call_and_validate(
        base_url=str(served.base_url), headers={"Authorization": served.headers["Authorization"]}, checks=CHECKED
    )


def test_examples_are_of_bodies_that_there_are() -> None:
    there = {name.removesuffix("-Input").removesuffix("-Output") for name in DOCUMENT["components"]["schemas"]}

    assert set(EXAMPLES) - there == set()
