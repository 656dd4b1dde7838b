"""A site under test: its local registry and its agent, as processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from pydantic import SecretStr

from harbor_satellite.processes import Child
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.htpasswd import set_password
from tests.acceptance.artifacts import digest_at
from tests.acceptance.centre import CLI, running
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.acceptance.centre import Wanted

_USERNAME = "satellite"
_PASSWORD = "made-up-for-a-site"
_RUN_SECONDS = 60.0


class Decider(Protocol):
    """A centre as a site knows it."""

    @property
    def url(self) -> str: ...

    def wait_published(self, satellite: str, wanted: Wanted) -> None: ...


@dataclass(frozen=True)
class Run:
    """How one ``edge sync`` ended, and what it says it did."""

    returncode: int
    said: dict[str, Any]
    log: str

    def references(self, action: str) -> list[str]:
        """Return the names that were copied, kept, deleted or failed."""
        return sorted(item["reference"] for item in self.said.get(action, ()))

    @property
    def reasons(self) -> dict[str, str]:
        """Return why each failed image failed."""
        return {item["reference"]: item["reason"] for item in self.said["failed"]}


class Site:
    """One site: a folder, a local registry that anybody may read, and the commands an operator runs there."""

    def __init__(self, name: str, folder: Path, centre: Decider) -> None:
        self.name = name
        self.folder = folder
        self.data_dir = folder / "edge"
        self.centre = centre
        self.settings: dict[str, str] = {}
        """Variables for the commands from now on, over those that say where things are."""
        self._stack = ExitStack()
        self._address = f"127.0.0.1:{free_port()}"
        self._htpasswd = folder / "htpasswd"
        self._serving = ExitStack()
        folder.mkdir(parents=True)
        set_password(self._htpasswd, _USERNAME, _PASSWORD)
        self.registry = self._stack.enter_context(HttpRegistry(f"http://{self._address}"))
        """As a container runtime sees it."""
        credentials = Credentials(_USERNAME, SecretStr(_PASSWORD))
        self.writable = self._stack.enter_context(HttpRegistry(f"http://{self._address}", credentials=credentials))

    @property
    def url(self) -> str:
        """The local registry's own address."""
        return f"http://{self._address}"

    def keep_images_at(self, url: str) -> None:
        """Have the commands use another registry, which anybody may write, instead of the embedded one."""
        self.settings |= {
            "HARBOR_SATELLITE_LOCAL_REGISTRY_URL": url,
            "HARBOR_SATELLITE_LOCAL_REGISTRY_USERNAME": "",
            "HARBOR_SATELLITE_LOCAL_REGISTRY_PASSWORD": "",
        }
        self.registry = self._stack.enter_context(HttpRegistry(url))

    def __enter__(self) -> Self:
        self.start_registry()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_registry()
        self._stack.close()

    def start_registry(self) -> None:
        root = str(self.folder / "registry")
        argv = (*CLI, "edge", "registry", "--root", root, "--listen", self._address, "--htpasswd", str(self._htpasswd))
        self._serving.enter_context(running("local registry", argv, {}, self.folder, f"http://{self._address}/v2/"))

    def stop_registry(self) -> None:
        self._serving.close()

    def wipe_registry(self) -> None:
        """Lose everything that the local registry holds, as a new disk would."""
        self.stop_registry()
        shutil.rmtree(self.folder / "registry")
        self.start_registry()

    def register(self, token: str, *, ground_control: str = "") -> subprocess.CompletedProcess[str]:
        """Claim the one-time token by the command line."""
        environment = {"HARBOR_SATELLITE_TOKEN": token}
        where = ("--ground-control", ground_control or self.centre.url, "--wait", "0")
        return self.command("register", *where, **environment)

    def sync(self) -> Run:
        """Replicate once."""
        done = self.command("sync", "--output", "json")
        assert done.stdout, f"edge sync ended with status {done.returncode}: {done.stderr}"
        return Run(done.returncode, json.loads(done.stdout), done.stderr)

    def refused_sync(self) -> str:
        """Try to replicate where nothing at all can be done; return what the command says."""
        done = self.command("sync", "--output", "json")
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    def paused_sync(self) -> str:
        """Try to replicate where no byte may move now; return why."""
        done = self.command("sync", "--output", "json")
        assert done.returncode == 3, done.stderr
        return str(json.loads(done.stdout)["paused"])

    def follow(self, wanted: Wanted) -> Run:
        """Wait until the centre has published this for the site, then replicate."""
        self.centre.wait_published(self.name, wanted)
        return self.sync()

    @contextmanager
    def worker(self, token: str = "") -> Iterator[Child]:
        """Run the real edge worker until the context ends."""
        environment = self._environment() | {
            "HARBOR_SATELLITE_GROUND_CONTROL_URL": self.centre.url,
            "HARBOR_SATELLITE_POLL_INTERVAL_SECONDS": "1",
            "HARBOR_SATELLITE_STATUS_LISTEN": f"127.0.0.1:{free_port()}",
            "HARBOR_SATELLITE_TOKEN": token,
        }
        argv = (*CLI, "--log-level", "INFO", "edge", "run")
        child = Child("edge worker", argv, env=environment, log=self.folder / "logs" / "edge-worker.log")
        try:
            yield child
        finally:
            child.stop()

    def holds(self, *references: str) -> dict[str, str | None]:
        """Return what each tag names at the site; None for one that is not there."""
        return {reference: digest_at(self.registry, reference) for reference in references}

    def start(self, command: str, *options: str) -> Child:
        """Start ``edge COMMAND`` and let it run; its log goes to the site's others."""
        argv = (*CLI, "--log-level", "INFO", "edge", command, *options)
        return Child(f"edge {command}", argv, env=self._environment(), log=self.folder / "logs" / f"edge-{command}.log")

    def command(self, command: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``edge COMMAND`` to its end."""
        return self._run(f"edge-{command}", [*CLI, "--log-level", "INFO", "edge", command, *options], environment)

    def python(self, program: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the environment of the site's commands to its end."""
        return self._run("python", [sys.executable, "-c", program], {})

    def _run(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv,
            env={**os.environ, **self._environment(), **environment},
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )
        log = self.folder / "logs" / f"{name}.log"
        with log.open("a") as file:
            file.write(f"--- status {done.returncode}\n{done.stdout}\n{done.stderr}\n")
        return done

    def _environment(self) -> dict[str, str]:
        return {
            "HARBOR_SATELLITE_DATA_DIR": str(self.data_dir),
            "HARBOR_SATELLITE_LOCAL_REGISTRY_URL": f"http://{self._address}",
            "HARBOR_SATELLITE_LOCAL_REGISTRY_USERNAME": _USERNAME,
            "HARBOR_SATELLITE_LOCAL_REGISTRY_PASSWORD": _PASSWORD,
            **self.settings,
        }
