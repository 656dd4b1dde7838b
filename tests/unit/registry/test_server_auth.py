from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.server import create_registry_app
from tests.unit.registry.test_server import Site, code_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ, WRITE = ("GET", "/v2/"), ("POST", "/v2/app/blobs/uploads/")


class OneUser:
    """Knows one user."""

    def verify(self, username: str, password: str) -> bool:
        return (username, password) == ("writer", "secret:with:colons")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LayoutRegistry]:
    with LayoutRegistry(tmp_path, "site") as registry:
        yield registry


@pytest.mark.parametrize(
    ("operation", "anonymous_read", "authorization", "status"),
    [
        (READ, True, None, 200),
        (READ, False, None, 401),
        (WRITE, True, None, 401),
        (READ, True, "Basic Og==", 200),  # ":", as podman sends it where it has no credentials
        (READ, False, "Basic Og==", 401),
        (WRITE, True, "Basic Og==", 401),
        (READ, False, "Basic d3JpdGVyOnNlY3JldDp3aXRoOmNvbG9ucw==", 200),
        (WRITE, True, "Basic d3JpdGVyOnNlY3JldDp3aXRoOmNvbG9ucw==", 202),
        (WRITE, True, "basic  d3JpdGVyOnNlY3JldDp3aXRoOmNvbG9ucw==", 202),
        (READ, True, "Basic d3JpdGVyOndyb25n", 401),
        (WRITE, True, "Basic d3JpdGVyOndyb25n", 401),
        (READ, True, "Basic !", 401),
        (READ, True, "Basic d3JpdGVy", 401),
        (READ, True, "Bearer token", 401),
    ],
)
def test_access_with_authenticator(
    registry: LayoutRegistry,
    operation: tuple[str, str],
    anonymous_read: bool,  # noqa: FBT001, a table's column
    authorization: str | None,
    status: int,
) -> None:
    site = Site(create_registry_app(registry, OneUser(), anonymous_read=anonymous_read), registry)

    answer = site.ask(*operation, headers={"authorization": authorization} if authorization else {})

    assert answer.status_code == status
    if status == 401:
        assert code_of(answer) == "UNAUTHORIZED"
        assert answer.headers["www-authenticate"].startswith('Basic realm="')


@pytest.mark.parametrize(
    ("operation", "allow_anonymous_writes", "status"), [(READ, False, 200), (WRITE, False, 403), (WRITE, True, 202)]
)
def test_access_without_authenticator(
    registry: LayoutRegistry,
    operation: tuple[str, str],
    allow_anonymous_writes: bool,  # noqa: FBT001, a table's column
    status: int,
) -> None:
    site = Site(create_registry_app(registry, allow_anonymous_writes=allow_anonymous_writes), registry)

    answer = site.ask(*operation, auth=("any", "body"))

    assert answer.status_code == status
    assert status != 403 or code_of(answer) == "DENIED"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_access_every_writing_method_needs_credentials(registry: LayoutRegistry, method: str) -> None:
    site = Site(create_registry_app(registry, OneUser()), registry)

    assert site.ask(method, "/v2/app/manifests/v1").status_code == 401


def test_ping_open_to_all_still_says_how_to_log_in(registry: LayoutRegistry) -> None:
    site = Site(create_registry_app(registry, OneUser()), registry)

    assert "www-authenticate" in site.ask("GET", "/v2/").headers
    assert "www-authenticate" not in site.ask("GET", "/v2/_catalog").headers
    assert site.ask("GET", "/healthz").status_code == 200


@pytest.mark.parametrize(("writer", "status"), [("writer", 202), ("somebody else", 403)])
def test_access_only_named_writers_may_write(registry: LayoutRegistry, writer: str, status: int) -> None:
    site = Site(create_registry_app(registry, OneUser(), writers=[writer]), registry)
    known = {"authorization": "Basic d3JpdGVyOnNlY3JldDp3aXRoOmNvbG9ucw=="}

    read, written = site.ask(*READ, headers=known), site.ask(*WRITE, headers=known)

    assert (read.status_code, written.status_code) == (200, status)
