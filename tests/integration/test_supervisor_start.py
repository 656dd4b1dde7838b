"""``edge run``: what it refuses, and the process tree that it becomes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.services import Service, ServicePlan, Sighting, read_sightings, write_plan
from harbor_satellite.processes import Child
from tests.acceptance.centre import CLI, wait_until
from tests.integration.supervised import is_gone
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUN = (*CLI, "edge", "run")


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HARBOR_SATELLITE_")}
    return kept | {
        "HARBOR_SATELLITE_ENV_FILE": "",
        "HARBOR_SATELLITE_DATA_DIR": str(tmp_path / "edge"),
        "HARBOR_SATELLITE_REGISTRATION_FILE": str(tmp_path / "registration.json"),
        "HARBOR_SATELLITE_STATUS_LISTEN": f"127.0.0.1:{free_port()}",
        **more,
    }


def refusal(environment: dict[str, str], *options: str) -> str:
    done = subprocess.run([*_RUN, *options], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Child]:
    """A site of the embedded registry, with a one-time token and a Ground Control that is away."""
    token_file = tmp_path / "token"
    token_file.write_text("made-up")
    variables = environment(
        tmp_path,
        HARBOR_SATELLITE_REGISTRY_KIND="embedded",
        HARBOR_SATELLITE_REGISTRY_LISTEN=f"127.0.0.1:{free_port()}",
        HARBOR_SATELLITE_TOKEN="made-up-too",
        HARBOR_SATELLITE_REGISTRATION_FILE=str(tmp_path / "none"),
    )
    options = ("--ground-control", f"http://127.0.0.1:{free_port()}", "--token-file", str(token_file))
    child = Child("edge run", (*_RUN, *options), env=variables, log=tmp_path / "log")
    try:
        yield child
    finally:
        child.stop()


def wait_until_running(site: Child, folder: Path) -> dict[str, int]:
    for _ in range(2000):
        site.check()
        seen = {one.name: one.pid for one in read_sightings(folder)}
        if len(seen) == 2 and all(seen.values()):
            return seen
        try:
            site.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(site.log.read_text())


def environment_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_edge_run_is_one_tree_that_one_signal_ends(tmp_path: Path, site: Child) -> None:
    folder = tmp_path / "edge"

    pids = wait_until_running(site, folder)

    agent, registry = environment_of(pids["agent"]), environment_of(pids["registry"])
    assert "HARBOR_SATELLITE_TOKEN_FILE" not in registry
    assert (agent["HARBOR_SATELLITE_TOKEN"], registry.get("HARBOR_SATELLITE_TOKEN")) == ("made-up-too", None)
    assert agent["HARBOR_SATELLITE_TOKEN_FILE"] == str(tmp_path / "token")
    assert agent["HARBOR_SATELLITE_GROUND_CONTROL_URL"].startswith("http://127.0.0.1:")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "made-up" not in Path(f"/proc/{site.pid}/cmdline").read_text()

    second = refusal(environment(tmp_path, HARBOR_SATELLITE_GROUND_CONTROL_URL="http://127.0.0.1:1"))
    assert f"another `edge run` is at work in {folder}" in second

    os.kill(site.pid, 15)
    assert site.wait(12) == 0
    assert all(is_gone(pid) for pid in pids.values())


def test_edge_run_without_ground_control_says_what_is_missing(tmp_path: Path) -> None:
    said = refusal(environment(tmp_path))

    assert "HARBOR_SATELLITE_GROUND_CONTROL_URL" in said
    assert not (tmp_path / "edge").exists()


def test_edge_run_folder_that_is_none_says_which(tmp_path: Path) -> None:
    (tmp_path / "edge").write_text("a file")

    said = refusal(environment(tmp_path), "--ground-control", "http://127.0.0.1:1")

    assert f"HARBOR_SATELLITE_DATA_DIR={tmp_path / 'edge'}" in said


def test_edge_run_with_settings_that_became_wrong_serves_as_before_until_they_are_mended(tmp_path: Path) -> None:
    settings, folder = tmp_path / "satellite.env", tmp_path / "edge"
    settings.write_text("HARBOR_SATELLITE_BLOB_WORKERS=many\nHARBOR_SATELLITE_SOURCE_PASSWORD=made-up\n")
    folder.mkdir()
    serving = Service("registry", ("sleep", "1000"))
    agent = Service("agent", (*CLI, "edge", "agent"), settings_file=str(settings))
    write_plan(folder, ServicePlan((serving, agent)))
    variables = environment(tmp_path, HARBOR_SATELLITE_ENV_FILE=str(settings), HARBOR_SATELLITE_TOKEN="made-up")
    child = Child("edge run", (*_RUN, "--ground-control", "http://127.0.0.1:1"), env=variables, log=tmp_path / "log")
    try:
        wait_until(lambda: seen(folder, "agent").last_end, lambda end: end == "exit 78", "the agent to give up")
        served = seen(folder, "registry").pid
        settings.write_text("HARBOR_SATELLITE_BLOB_WORKERS=2\n")
        wait_until((folder / "agent.alive").exists, bool, "the agent to live")
        wait_until(lambda: seen(folder, "agent").pid, bool, "the agent to be seen")
    finally:
        child.stop()
    log = (tmp_path / "log").read_text()

    assert served
    assert "the services run by the plan from before reason=HARBOR_SATELLITE_BLOB_WORKERS: " in log
    assert "the agent waits until the settings are right reason=HARBOR_SATELLITE_BLOB_WORKERS: " in log
    assert "made-up" not in log
    assert "Traceback" not in log


def seen(folder: Path, name: str) -> Sighting:
    return next((one for one in read_sightings(folder) if one.name == name), Sighting(name))


def test_edge_run_with_wrong_settings_and_no_plan_says_which(tmp_path: Path) -> None:
    (tmp_path / "satellite.env").write_bytes(b"\xff\xfe")

    said = refusal(environment(tmp_path, HARBOR_SATELLITE_ENV_FILE=str(tmp_path / "satellite.env")))

    assert said.startswith(f"error: {tmp_path / 'satellite.env'} is no text in UTF-8\n")


def test_supervisor_imports_nothing_but_the_standard_library() -> None:
    program = (
        "import sys; sys.path.append(sys.argv[1]); import harbor_satellite.edge.supervisor\n"
        "for name, module in sorted(sys.modules.items()): print(name, getattr(module, '__file__', None) or '')"
    )
    root = str(Path(__file__).resolve().parents[2])
    argv = [sys.executable, "-I", "-S", "-c", program, root]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)

    loaded = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    ours = {name for name in loaded if name.startswith("harbor_satellite")}
    assert {name.rpartition(".")[2] for name in ours} == {
        *("harbor_satellite", "edge"),
        *("supervisor", "keeper", "children", "notices", "probe", "restarts", "services"),
    }
    assert not [name for name, file in loaded.items() if "site-packages" in file]
    assert not loaded.keys() & {"ssl", "http.client", "email", "logging", "subprocess", "asyncio", "tempfile"}
