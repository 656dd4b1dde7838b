"""Real registries on loopback, one process for each test that asks; stopped by their own handle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import bcrypt
import pytest

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 10.0
_PROJECT: Final = Path(__file__).resolve().parent.parent
USERNAME: Final = "writer"
PASSWORD: Final = "made-up-for-a-test"


@dataclass(frozen=True, slots=True)
class RunningRegistry:
    """A registry that answers, and whom it listens to."""

    kind: str
    url: str
    host: str
    """host:port"""
    root: Path
    """Where it keeps its files."""
    username: str = ""
    password: str = ""


@pytest.fixture
def cncf_registry(tmp_path: Path) -> Iterator[RunningRegistry]:
    """CNCF distribution on a directory; deleting is allowed, the referrers API does not exist."""
    with run_cncf(tmp_path / "cncf") as running:
        yield running


@pytest.fixture
def cncf_registry_with_password(tmp_path: Path) -> Iterator[RunningRegistry]:
    """CNCF distribution that wants HTTP Basic for everything."""
    with run_cncf(tmp_path / "cncf", has_password=True) as running:
        yield running


@pytest.fixture
def zot_registry(tmp_path: Path) -> Iterator[RunningRegistry]:
    """Zot as a site runs it, without the waits of its garbage collection."""
    with run_zot(tmp_path / "zot") as running:
        yield running


@pytest.fixture
def zot_registry_with_password(tmp_path: Path) -> Iterator[RunningRegistry]:
    """Zot as a site runs it: anybody may read, one user may write."""
    with run_zot(tmp_path / "zot", has_password=True) as running:
        yield running


@pytest.fixture
def embedded_registry(tmp_path: Path) -> Iterator[RunningRegistry]:
    """Our own registry, in a process of its own."""
    with run_embedded(tmp_path / "embedded") as running:
        yield running


@pytest.fixture
def embedded_registry_with_password(tmp_path: Path) -> Iterator[RunningRegistry]:
    """Our own registry: anybody may read, one user may write."""
    with run_embedded(tmp_path / "embedded", has_password=True) as running:
        yield running


@pytest.fixture(params=["cncf", pytest.param("zot", marks=pytest.mark.zot), "embedded"])
def any_registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningRegistry]:
    """Each kind of real registry in turn."""
    start = {"cncf": run_cncf, "zot": run_zot, "embedded": run_embedded}[request.param]
    with start(tmp_path / request.param) as running:
        yield running


@contextmanager
def run_cncf(folder: Path, *, has_password: bool = False) -> Iterator[RunningRegistry]:
    """Run CNCF distribution until the context ends."""
    program = _program("registry")
    address = _free_address()
    root = _made(folder / "data")
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }
    if has_password:
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(write_htpasswd(folder / "htpasswd"))}}
    # JSON is YAML.
    settings = folder / "config.yml"
    settings.write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REGISTRY_", "OTEL_"))}
    environment["OTEL_TRACES_EXPORTER"] = "none"
    with _running((program, "serve", str(settings)), address, folder / "log", environment):
        yield _registry("cncf", address, root, has_password=has_password)


@contextmanager
def run_zot(folder: Path, *, has_password: bool = False) -> Iterator[RunningRegistry]:
    """Run Zot until the context ends."""
    program = _program("zot")
    address = _free_address()
    host, _, port = address.rpartition(":")
    root = _made(folder / "data")
    http: dict[str, object] = {"address": host, "port": port, "compat": ["docker2s2"]}
    if has_password:
        rules = {
            "anonymousPolicy": ["read"],
            "policies": [{"users": [USERNAME], "actions": ["read", "create", "update", "delete"]}],
        }
        http["auth"] = {"htpasswd": {"path": str(write_htpasswd(folder / "htpasswd"))}}
        http["accessControl"] = {"repositories": {"**": rules}}
    config = {
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": str(root), "dedupe": True, "gc": True, "gcDelay": "48h", "gcInterval": "24h"},
        "http": http,
        "log": {"level": "error"},
    }
    settings = folder / "config.json"
    settings.write_text(json.dumps(config))
    with _running((program, "serve", str(settings)), address, folder / "log", dict(os.environ)):
        yield _registry("zot", address, root, has_password=has_password)


@contextmanager
def run_embedded(folder: Path, *, has_password: bool = False) -> Iterator[RunningRegistry]:
    """Run the embedded registry until the context ends."""
    address = _free_address()
    root = _made(folder / "data")
    htpasswd = str(write_htpasswd(folder / "htpasswd")) if has_password else ""
    source = (
        "import sys; from pathlib import Path; "
        "from harbor_satellite.registry.server import run_registry_server; "
        "root, listen, htpasswd = sys.argv[1:]; "
        "run_registry_server(Path(root), listen, Path(htpasswd) if htpasswd else None, "
        "allow_anonymous_writes=not htpasswd)"
    )
    command = (sys.executable, "-c", source, str(root), address, htpasswd)
    environment = dict(os.environ) | {"PYTHONPATH": str(_PROJECT)}
    with _running(command, address, folder / "log", environment):
        yield _registry("embedded", address, root, has_password=has_password)


def write_htpasswd(path: Path) -> Path:
    """Write the one user whom registries with a password know."""
    path.write_text(f"{USERNAME}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()}\n")
    return path


def _registry(kind: str, address: str, root: Path, *, has_password: bool) -> RunningRegistry:
    username, password = (USERNAME, PASSWORD) if has_password else ("", "")
    return RunningRegistry(kind, f"http://{address}", address, root, username, password)


def _program(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"NOT TESTED: there is no program {name!r} on PATH")
    return program


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _free_address() -> str:
    return f"127.0.0.1:{free_port()}"


@contextmanager
def _running(command: Sequence[str], address: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            _wait_until_answering(process, address, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_answering(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/v2/", timeout=2):
                return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.05)
    state = "stopped" if process.poll() is not None else "does not answer"
    pytest.fail(f"registry at {address} {state}: {log.read_text(errors='replace')[-2000:]}")
