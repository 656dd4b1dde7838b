"""No message shows a secret: keys given in the wrong place, users written into URLs; credentials go to one registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.demo.images import AMD64, layer, push_image
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.client_urls import parse_address
from harbor_satellite.satellite.connections import registry_host
from tests.fakes.registry import FakeRegistry
from tests.unit.test_cli import APP, Run, run, source, target, write_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["run", "source", "target"]

SECRET = "made-up-secret"
PRIVATE_KEY = (
    f"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n{SECRET}\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
)
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(params=[PRIVATE_KEY.encode(), SECRET.encode() + b"\xff", b""], ids=["private", "no text", "empty"])
def key(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "cosign.key"
    path.write_bytes(request.param)
    return path


@pytest.mark.parametrize("name", ["IMAGE_KEYS", "STATE_KEYS"])
def test_cli_sync_key_that_is_not_public_is_named_and_not_shown(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: Path, name: str
) -> None:
    monkeypatch.setenv(f"HARBOR_SATELLITE_{name}", str(key))

    code = run("edge", "sync")

    error = capsys.readouterr().err
    assert code == 2
    assert f"{key} is no public key (PEM)" in error
    assert SECRET not in error
    assert "PRIVATE KEY" not in error


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (("sync", "--state", "STATE", "--source", f"http://user:{SECRET}@host"), "SOURCE_USERNAME"),
        (("sync", "--state", "STATE", "--source", f"http://user:{SECRET}/x@host"), "SOURCE_USERNAME"),
        (("sync", "--state", "STATE", "--target", f"http://user:{SECRET}@host"), "LOCAL_REGISTRY_USERNAME"),
        (("why", "acme/app", "--target", f"http://user:{SECRET}@host"), "LOCAL_REGISTRY_USERNAME"),
        (("audit", "--source", f"http://user:{SECRET}@host"), "SOURCE_USERNAME"),
        (("receipt", "--target", f"http://user:{SECRET}@host"), "LOCAL_REGISTRY_USERNAME"),
        (("export", "--output", "STATE.tar", "--source", f"http://user:{SECRET}@host"), "SOURCE_USERNAME"),
        (("sync", "--state", f"http://user:{SECRET}@host/a/b:state"), "SOURCE_USERNAME"),
        (("sync", "--state", f"user:{SECRET}@host/a/b@sha256:{'0' * 64}"), "SOURCE_USERNAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_cli_user_in_a_url_is_refused_unseen(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], variable: str
) -> None:
    state = write_state(tmp_path / "state.json", NOWHERE)

    code = run("edge", *(part.replace("STATE", state) for part in arguments))

    error = capsys.readouterr().err
    assert code == 2
    assert f"HARBOR_SATELLITE_{variable}" in error
    assert SECRET not in error


@pytest.mark.parametrize("name", ["LOCAL_REGISTRY_URL", "GROUND_CONTROL_URL"])
def test_cli_user_in_a_setting_is_refused_unseen(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"HARBOR_SATELLITE_{name}", f"https://user:{SECRET}@host")

    code = run("edge", "sync")

    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith(f"error: HARBOR_SATELLITE_{name}: ")
    assert SECRET not in error


def test_cli_user_in_a_state_file_is_refused_unseen(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = write_state(tmp_path / "state.json", f"https://user:{SECRET}@host", (APP, f"sha256:{'0' * 64}"))

    code = run("edge", "sync", "--state", state, "--target", NOWHERE)

    error = capsys.readouterr().err
    assert code == 2
    assert f"{state}: registry" in error
    assert SECRET not in error


def test_cli_setting_that_is_wrong_is_named_as_it_is_written(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_DAILY_BYTES", "5X")

    code = run("edge", "sync")

    assert code == 2
    assert capsys.readouterr().err == (
        "error: HARBOR_SATELLITE_DAILY_BYTES: not a size (such as 700M, 4G, 4GiB): '5X'\n"
    )


def test_cli_ground_control_with_a_user_is_refused_unseen(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("edge", "register", "--ground-control", f"https://user:{SECRET}@host")

    assert code == 2
    assert SECRET not in capsys.readouterr().err


@pytest.mark.parametrize("read", [registry_host, parse_address])
def test_addresses_that_are_none_are_not_shown_with_their_user(read: Callable[[str], object]) -> None:
    with pytest.raises(InvalidInputError) as raised:
        read(f"https://user:{SECRET}@host")

    assert SECRET not in str(raised.value)
    assert "host" in str(raised.value)


@pytest.mark.parametrize("keys", [PRIVATE_KEY, [PRIVATE_KEY], [[PRIVATE_KEY]]], ids=["text", "list", "nested"])
def test_cli_private_key_in_a_state_file_is_not_shown(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, keys: object
) -> None:
    document = {"group": "g", "registry": NOWHERE, "artifacts": [], "policy": {"signature_keys": keys}}
    (tmp_path / "state.json").write_text(json.dumps(document))

    code = run("edge", "sync", "--state", str(tmp_path / "state.json"), "--target", NOWHERE)

    error = capsys.readouterr().err
    assert code == 2
    assert "key" in error
    assert SECRET not in error


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setenv("HARBOR_SATELLITE_SOURCE_USERNAME", "robot")
    monkeypatch.setenv("HARBOR_SATELLITE_SOURCE_PASSWORD", SECRET)
    return Credentials("robot", SecretStr(SECRET))


def test_cli_sync_state_file_sends_credentials_to_the_registry_that_it_names(
    run: Run, login: Credentials, tmp_path: Path, target: tuple[FakeRegistry, str]
) -> None:
    private = FakeRegistry(auth="basic", username="robot", password=SECRET)
    with private.serving() as url:
        with HttpRegistry(url, credentials=login) as registry:
            digest = str(push_image(registry, APP, AMD64, [layer("one", 2000)]).digest)
        state = write_state(tmp_path / "state.json", url, (APP, digest))

        code = run("edge", "sync", "--state", state, "--target", target[1])

    assert code == 0
    assert target[0].tags[APP]["v1"] == digest


@pytest.mark.usefixtures("login")
def test_cli_sync_state_files_of_several_registries_send_credentials_to_none(
    run: Run, tmp_path: Path, source: tuple[FakeRegistry, str], target: tuple[FakeRegistry, str]
) -> None:
    other = FakeRegistry(auth="basic", username="robot", password=SECRET)
    source[0].auth = "basic"
    source[0].basic = other.basic
    with other.serving() as url:
        given = []
        for number, registry in enumerate((url, source[1])):
            path = tmp_path / f"{number}.json"
            entry = {"repository": f"acme/{number}", "tag": ["v1"], "digest": f"sha256:{'0' * 64}"}
            path.write_text(json.dumps({"group": f"g{number}", "registry": registry, "artifacts": [entry]}))
            given += ["--state", str(path)]

        code = run("edge", "sync", *given, "--target", target[1])

    asked = [*other.requests, *source[0].requests]
    assert code == 1
    assert asked
    assert not any("authorization" in {name.lower() for name in request.headers} for request in asked)
