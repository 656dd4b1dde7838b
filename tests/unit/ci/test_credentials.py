from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from ci.credentials import (
    Login,
    Secret,
    docker_config_text,
    read_secret,
    registry_login,
    registry_logins,
    signing_secrets,
)
from ci.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

REGISTRY = "ghcr.io"
AUTH = base64.b64encode(b"robot$a:made:up").decode()


def config_file(folder: Path, content: object) -> Path:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_secret_is_not_printed() -> None:
    assert "hidden" not in f"{Secret('hidden')!r} {Secret('hidden')} {Login('me', Secret('hidden'))}"


def test_read_secret_file_drops_line_end(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(" pass word\r\n")

    assert read_secret({"P_FILE": str(tmp_path / "password")}, "P") == Secret(" pass word")


def test_read_secret_variable_comes_before_file(tmp_path: Path) -> None:
    assert read_secret({"P": "a", "P_FILE": str(tmp_path / "none")}, "P") == Secret("a")


@pytest.mark.parametrize("content", [None, "\n"], ids=["missing", "empty"])
def test_read_secret_unreadable_file_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "password").write_text(content)

    with pytest.raises(UsageError, match=r"P_FILE=.*password: (cannot be read|is empty)"):
        read_secret({"P_FILE": str(tmp_path / "password")}, "P")


def test_signing_secrets_key_comes_with_password() -> None:
    environment = {"COSIGN_PRIVATE_KEY": "pem", "COSIGN_PASSWORD": "p", "SIGSTORE_ID_TOKEN": "t"}

    found = signing_secrets(environment, is_keyless=False)

    assert found == {"COSIGN_PRIVATE_KEY": Secret("pem"), "COSIGN_PASSWORD": Secret("p")}


def test_signing_secrets_keyless_takes_identity_alone() -> None:
    environment = {
        "COSIGN_PRIVATE_KEY": "pem",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t",
        "ACTIONS_ID_TOKEN_REQUEST_URL": "u",
    }

    assert set(signing_secrets(environment, is_keyless=True)) == {
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
    }


@pytest.mark.parametrize(
    ("is_keyless", "message"),
    [(False, "COSIGN_PRIVATE_KEY must hold"), (True, "the CI must give an identity")],
    ids=["key", "keyless"],
)
def test_signing_secrets_missing_says_what_to_set(message: str, *, is_keyless: bool) -> None:
    with pytest.raises(UsageError, match=message):
        signing_secrets({}, is_keyless=is_keyless)


def test_registry_login_variables_come_first(tmp_path: Path) -> None:
    config = config_file(tmp_path, {"auths": {REGISTRY: {"auth": AUTH}}})
    environment = {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "p"}

    assert registry_login(environment, REGISTRY, config) == Login("me", Secret("p"))


def test_registry_login_both_may_be_files(tmp_path: Path) -> None:
    for name, text in (("username", "me\n"), ("password", "p\n")):
        (tmp_path / name).write_text(text)
    files = {f"REGISTRY_{name.upper()}_FILE": str(tmp_path / name) for name in ("username", "password")}

    assert registry_login(files, REGISTRY, None) == Login("me", Secret("p"))


@pytest.mark.parametrize("variable", ["REGISTRY_USERNAME", "REGISTRY_PASSWORD"])
def test_registry_login_half_is_refused(variable: str) -> None:
    with pytest.raises(UsageError, match="belong together"):
        registry_login({variable: "x"}, REGISTRY, None)


def test_registry_login_docker_config_round_trips(tmp_path: Path) -> None:
    login = Login("robot$a", Secret("made:up"))
    config = config_file(tmp_path, docker_config_text({REGISTRY: login}).value)

    assert registry_login({}, REGISTRY, config) == login
    assert registry_login({}, "other.example.com", config) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no login for ghcr.io can be read"),
        ({"auths": {REGISTRY: {"auth": "not base64!"}}}, "no login for ghcr.io can be read"),
        ({"auths": {REGISTRY: {}}, "credsStore": "desktop"}, "kept by the credential helper desktop"),
        ({"credHelpers": {REGISTRY: "gcloud"}}, "kept by the credential helper gcloud"),
    ],
    ids=["no-json", "no-base64", "store", "helper"],
)
def test_registry_login_unusable_docker_config_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        registry_login({}, REGISTRY, config_file(tmp_path, content))

    assert "not base64" not in str(raised.value)


DOCKER_HUB = ["docker.io", "index.docker.io", "registry-1.docker.io"]


@pytest.mark.parametrize("registry", DOCKER_HUB)
def test_docker_config_docker_hub_has_the_name_that_tools_look_for(tmp_path: Path, registry: str) -> None:
    login = Login("me", Secret("p"))

    written = docker_config_text({registry: login}).value

    assert set(json.loads(written)["auths"]) == {"https://index.docker.io/v1/", registry}
    assert registry_login({}, registry, config_file(tmp_path, written)) == login


@pytest.mark.parametrize("registry", DOCKER_HUB)
def test_registry_login_docker_hub_kept_by_a_helper_is_named(tmp_path: Path, registry: str) -> None:
    config = config_file(tmp_path, {"credHelpers": {"https://index.docker.io/v1/": "desktop"}})

    with pytest.raises(UsageError, match="kept by the credential helper desktop"):
        registry_login({}, registry, config)


def test_registry_login_docker_hub_by_its_own_name_is_read_too(tmp_path: Path) -> None:
    config = config_file(tmp_path, {"auths": {"https://index.docker.io/v1/": {}, "docker.io": {"auth": AUTH}}})

    assert registry_login({}, "docker.io", config) == Login("robot$a", Secret("made:up"))


@pytest.mark.parametrize(
    "environment",
    [
        {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "p"},
        {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD_FILE": "/f"},
    ],
    ids=["variable", "file"],
)
def test_registry_logins_variables_are_not_shown_to_several_registries(environment: dict[str, str]) -> None:
    with pytest.raises(
        UsageError, match=r"are for one registry, but named are a\.example, b\.example: .*--docker-config"
    ):
        registry_logins(environment, ["b.example", "a.example", "b.example"], None)


def test_registry_logins_names_of_docker_hub_are_one_registry() -> None:
    environment = {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "p"}

    assert set(registry_logins(environment, DOCKER_HUB, None)) == set(DOCKER_HUB)


def test_registry_logins_docker_config_has_each_its_own(tmp_path: Path) -> None:
    config = config_file(tmp_path, {"auths": {"a.example": {"auth": AUTH}}})

    found = registry_logins({}, ["a.example", "b.example"], config)

    assert found == {"a.example": Login("robot$a", Secret("made:up"))}
