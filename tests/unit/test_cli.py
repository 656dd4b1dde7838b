"""The console script in this process: exit codes and messages."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harbor_satellite import __version__, cli
from harbor_satellite.cli.site import warn_of_writers
from harbor_satellite.demo.images import AMD64, layer, push_image
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.htpasswd import HtpasswdAuthenticator
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = "acme/app"


class Run:
    """Runs the script with arguments; gives its exit code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str) -> int:
        self._monkeypatch.setattr(sys, "argv", ["harbor-satellite", *arguments])
        try:
            cli.main()
        except SystemExit as ending:
            return int(ending.code or 0)
        return 0


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("HARBOR_SATELLITE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TERM", "dumb")
    return Run(monkeypatch)


@pytest.fixture
def source() -> Iterator[tuple[FakeRegistry, str]]:
    fake = FakeRegistry()
    with fake.serving() as url:
        yield fake, url


@pytest.fixture
def target() -> Iterator[tuple[FakeRegistry, str]]:
    fake = FakeRegistry()
    with fake.serving() as url:
        yield fake, url


def write_state(path: Path, source_url: str, *images: tuple[str, str]) -> str:
    artifacts = [{"repository": name, "tag": ["v1"], "digest": digest} for name, digest in images]
    path.write_text(json.dumps({"group": "g", "registry": source_url, "artifacts": artifacts}))
    return str(path)


def push(url: str) -> str:
    with HttpRegistry(url) as registry:
        return str(push_image(registry, APP, AMD64, [layer("one", 2000)]).digest)


def test_cli_version(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"harbor-satellite {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("edge", "nonsense"),
        ("--log-level", "LOUD", "edge", "register"),
        ("edge", "sync", "--workers", "0"),
        ("edge", "sync", "--output", "xml"),
        ("edge", "sync", "--platform", "linux"),
        ("edge", "sync", "--state", "/no/such/file.json", "--target", "http://127.0.0.1:1"),
        ("edge", "register"),
        ("edge", "register", "--ground-control", "http://127.0.0.1:1"),
        ("edge", "run", "--ground-control", ""),
        ("edge", "registry", "--root", "ROOT", "--listen", "nowhere"),
        ("edge", "sync"),
    ],
    ids=" ".join,
)
def test_cli_wrong_use_exits_2_without_traceback(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code = run(*(str(tmp_path / "root") if part == "ROOT" else part for part in arguments))

    assert code == 2
    error = capsys.readouterr().err
    assert error.strip()
    assert "Traceback" not in error


def test_cli_broken_setting_exits_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_IMAGE_WORKERS", "many")

    assert run("edge", "sync") == 2


def test_cli_sync_says_what_was_done_as_json(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    source: tuple[FakeRegistry, str],
    target: tuple[FakeRegistry, str],
) -> None:
    digest = push(source[1])
    state = write_state(tmp_path / "state.json", source[1], (APP, digest))

    code = run("edge", "sync", "--state", state, "--target", target[1], "--output", "json")

    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [(row["reference"], row["digest"]) for row in document["copied"]] == [(f"{APP}:v1", digest)]
    assert target[0].tags[APP] == {"v1": digest}
    assert document["bytes_from_source"] > 2000
    assert document["requests"] > 0
    assert {"kept", "deleted", "failed", "seconds", "state_digest"} <= document.keys()


def test_cli_sync_again_keeps(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    source: tuple[FakeRegistry, str],
    target: tuple[FakeRegistry, str],
) -> None:
    state = write_state(tmp_path / "state.json", source[1], (APP, push(source[1])))
    run("edge", "sync", "--state", state, "--target", target[1])
    capsys.readouterr()

    code = run("edge", "sync", "--state", state, "--target", target[1])

    assert code == 0
    assert capsys.readouterr().out.splitlines()[0] == f"kept        {APP}:v1  wanted by g"


def test_cli_sync_bad_image_exits_1_and_brings_the_good_one(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    source: tuple[FakeRegistry, str],
    target: tuple[FakeRegistry, str],
) -> None:
    bad = ("acme/bad", "sha256:" + "0" * 64)
    state = write_state(tmp_path / "state.json", source[1], bad, (APP, push(source[1])))

    code = run("edge", "sync", "--state", state, "--target", target[1])

    output = capsys.readouterr().out
    assert code == 1
    assert "failed      acme/bad:v1" in output
    assert f"copied      {APP}:v1" in output


def test_cli_sync_source_overrules_what_the_state_names(
    run: Run, tmp_path: Path, source: tuple[FakeRegistry, str], target: tuple[FakeRegistry, str]
) -> None:
    state = write_state(tmp_path / "state.json", "https://unreachable.invalid", (APP, push(source[1])))

    assert run("edge", "sync", "--state", state, "--target", target[1], "--source", source[1]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not JSON"), ('{"group": "../x"}', "not a group name"), ("[]", "not a JSON object")],
    ids=["cut", "bad name", "list"],
)
def test_cli_sync_malformed_state_file_exits_2_with_advice(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "state.json").write_text(content)

    code = run("edge", "sync", "--state", str(tmp_path / "state.json"), "--target", "http://127.0.0.1:1")

    first, second = capsys.readouterr().err.splitlines()
    assert code == 2
    assert first.startswith("error: malformed state")
    assert message in first
    assert second.strip().startswith("Correct the value or the file")


def test_cli_sync_target_not_there_exits_1(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, source: tuple[FakeRegistry, str]
) -> None:
    state = write_state(tmp_path / "state.json", source[1], (APP, push(source[1])))

    code = run("edge", "sync", "--state", state, "--target", "http://127.0.0.1:1")

    assert code == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_cli_as_a_process_without_arguments_shows_help() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    command = [sys.executable, "-c", "from harbor_satellite.cli import main; main()", "--help"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)

    assert done.returncode == 0
    assert {"edge", "ground-control", "demo"} <= set(done.stdout.split())


def test_cli_edge_user_makes_a_user_that_may_log_in(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("made-up-password\n"))

    code = run("edge", "user", "satellite", "--htpasswd", str(tmp_path / "users"))

    assert code == 0
    assert HtpasswdAuthenticator(tmp_path / "users").verify("satellite", "made-up-password")
    assert run("edge", "user", "satellite", "--htpasswd", str(tmp_path / "users"), "--delete") == 0
    assert not HtpasswdAuthenticator(tmp_path / "users").verify("satellite", "made-up-password")


def test_cli_edge_sync_loads_nothing_of_the_centre(
    tmp_path: Path, source: tuple[FakeRegistry, str], target: tuple[FakeRegistry, str]
) -> None:
    state = write_state(tmp_path / "state.json", source[1], (APP, push(source[1])))
    arguments = ["edge", "sync", "--state", state, "--target", target[1], "--data-dir", str(tmp_path / "data")]
    code = (
        "import atexit, sys; from harbor_satellite.cli import main; "
        "atexit.register(lambda: print('loaded', *sorted({name.partition('.')[0] for name in sys.modules}))); "
        f"sys.argv[1:] = {arguments!r}; main()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "harbor_satellite" in loaded
    assert not loaded & {"oras", "requests", "prefect", "sqlalchemy", "fastapi", "starlette", "uvicorn", "rich"}


@pytest.mark.parametrize(
    ("users", "writer", "warning"),
    [
        (None, "", "nobody can write: cannot read USERS: No such file or directory"),
        ("# nobody\n\n", "", "nobody can write: no user in USERS; `edge user` adds one"),
        ("somebody:hash\n", "other", "other cannot write: no such user in USERS"),
        ("somebody:hash\n", "somebody", ""),
    ],
    ids=["missing", "empty", "unknown writer", "known writer"],
)
def test_cli_edge_registry_warns_if_nobody_can_write(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, users: str | None, writer: str, warning: str
) -> None:
    path = tmp_path / "users"
    if users is not None:
        path.write_text(users)

    warn_of_writers(path, [writer] if writer else [])

    expected = f"warning: {warning}\n".replace("USERS", str(path)) if warning else ""
    assert capsys.readouterr().err == expected
