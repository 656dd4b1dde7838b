"""A whole site under test, as an operator installs it: `edge run`, on a host of its own where that can be had."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx

from harbor_satellite.processes import Child
from tests.acceptance import asking
from tests.acceptance.centre import CLI, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from tests.acceptance.centre import Centre
    from tests.fakes.host import Host

REGISTRY_PORT = 8585
STATUS_PORT = 8586
_PULL_PAUSE_SECONDS = 0.2
_PULL_SECONDS = 20.0  # of patience with each answer
_ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"


class EdgeSite:
    """`edge run` in a network namespace, with the local registry that it runs itself.

    Args:
        name: of its satellite.
        folder: a new one, for its files.
        centre: where it registers.
        host: where it runs.
        settings: ``HARBOR_SATELLITE_…`` without the prefix, over those of a site in a hurry.
    """

    def __init__(self, name: str, folder: Path, centre: Centre, host: Host, **settings: str) -> None:
        folder.mkdir(parents=True)
        self.name, self.folder, self.centre, self.host = name, folder, centre, host
        self.data_dir = folder / "edge"
        self.env_file = folder / "satellite.env"
        self.settings = {
            "DATA_DIR": str(self.data_dir),
            "ENV_FILE": str(self.env_file),
            "REGISTRATION_FILE": str(folder / "registration.json"),
            "GROUND_CONTROL_URL": centre.url,
            "REGISTRY_KIND": "embedded",
            "REGISTRY_LISTEN": f"127.0.0.1:{REGISTRY_PORT}",
            "STATUS_LISTEN": f"127.0.0.1:{STATUS_PORT}",
            "POLL_INTERVAL_SECONDS": "2",
            "REPORT_INTERVAL_SECONDS": "5",
            "JITTER_SECONDS": "0",
        } | settings
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped or killed as a whole."""
        return self._child is None

    def start(self, token: str = "") -> Child:
        """Start the site; with a token if it has none yet."""
        env = {f"HARBOR_SATELLITE_{key}": value for key, value in self.settings.items()}
        env["HARBOR_SATELLITE_TOKEN"] = token
        self._child = Child("edge", (*self.host.prefix, *CLI, "edge", "run"), env=env, log=self.folder / "edge.log")
        return self._child

    def stop(self) -> float:
        """End the site by SIGTERM; return how long that took (seconds)."""
        before = time.monotonic()
        if self._child:
            self._child.stop()
            self._child = None
        return time.monotonic() - before

    def kill(self, service: str = "") -> None:
        """End a service, or all of the site at once, by SIGKILL."""
        assert self._child
        if service:
            os.kill(self.service(service)["pid"], signal.SIGKILL)
        else:
            os.kill(self._child.pid, signal.SIGKILL)
            self._child.stop()
            self._child = None

    def signal(self, service: str, number: signal.Signals) -> None:
        """Send a service a signal."""
        os.kill(self.service(service)["pid"], number)

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._child
        return self._child.pid

    def service(self, name: str) -> dict[str, Any]:
        """Return what the supervisor says of a service."""
        document = json.loads((self.data_dir / "services-seen.json").read_bytes())
        found: dict[str, Any] = next(item for item in document["services"] if item["name"] == name)
        return found

    def get(self, path: str, *, port: int = REGISTRY_PORT, timeout_seconds: float = 5.0) -> httpx.Response:
        """Ask the local registry (or the status page) as a program on that host does."""
        return self.there(
            lambda: asking.get(
                f"http://127.0.0.1:{port}{path}",
                timeout=timeout_seconds,
                headers={"Accept": _ACCEPT} if port == REGISTRY_PORT else None,
            )
        )

    def tag(self, repository: str, tag: str) -> str:
        """Return the digest that the local registry has for a tag; empty if it has none, or does not answer."""
        try:
            answer = self.get(f"/v2/{repository}/manifests/{tag}")
        except httpx.HTTPError:
            return ""
        return str(answer.headers["Docker-Content-Digest"]) if answer.status_code == httpx.codes.OK else ""

    def wait_tag(self, repository: str, tag: str, digest: str) -> None:
        """Wait until the local registry has this."""
        wait_until(
            lambda: self.tag(repository, tag), lambda found: found == digest, f"{repository}:{tag} to be {digest}"
        )

    def status(self) -> dict[str, Any]:
        """Return what the status page says."""
        found: dict[str, Any] = self.get("/status.json", port=STATUS_PORT).json()
        return found

    def there(self, act: Callable[[], httpx.Response]) -> httpx.Response:
        """Do something with sockets as a program on that host does."""
        outcome: list[httpx.Response | httpx.HTTPError] = []

        def work() -> None:
            self.host.enter()
            try:
                outcome.append(act())
            except httpx.HTTPError as error:
                outcome.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        found = outcome[0]
        if isinstance(found, httpx.HTTPError):
            raise found
        return found


@dataclass
class Puller:
    """A container runtime that pulls an image of a site again and again; notes every pull that failed."""

    site: EdgeSite
    repository: str
    tag: str
    failures: list[str] = field(default_factory=list)
    pulls: int = 0
    longest_seconds: float = 0.0

    def __enter__(self) -> Self:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        self.site.host.enter()
        while not self._stopping.wait(_PULL_PAUSE_SECONDS):
            before = time.monotonic()
            try:
                self._pull()
            except (httpx.HTTPError, KeyError, ValueError) as error:
                self.failures.append(f"{time.time():.1f} {error!r}")
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - before)
            self.pulls += 1

    def _pull(self) -> None:
        base = f"http://127.0.0.1:{REGISTRY_PORT}/v2/{self.repository}"
        with asking.client(timeout=_PULL_SECONDS, headers={"Accept": _ACCEPT}) as client:
            manifest = client.get(f"{base}/manifests/{self.tag}").raise_for_status().json()
            if "manifests" in manifest:
                child = manifest["manifests"][0]["digest"]
                manifest = client.get(f"{base}/manifests/{child}").raise_for_status().json()
            for layer in (manifest["config"], *manifest["layers"]):
                found = client.get(f"{base}/blobs/{layer['digest']}").raise_for_status()
                if len(found.content) != layer["size"]:
                    raise ValueError(f"{layer['digest']}: {len(found.content)} of {layer['size']} bytes")
