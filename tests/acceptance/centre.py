"""The centre under test: processes, spoken to over Ground Control's HTTP API and the registry's."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
import tarfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import RemoteError
from harbor_satellite.processes import Child, free_port
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.htpasswd import set_password
from tests.acceptance.artifacts import read_blob
from tests.acceptance.front import serve_front
from tests.fakes.harbor_accounts import ADMIN as HARBOR_ADMIN
from tests.fixtures_registry import PASSWORD, USERNAME, run_cncf, run_embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CLI = (sys.executable, "-c", "from harbor_satellite.cli import main; main()")
ADMIN_PASSWORD = "Acceptance-1"
PUBLISHING_SECONDS = 100.0  # of patience; it takes a few
SHORTEST_TOKEN_SECONDS = 1  # Ground Control takes no less
_PROJECT = Path(__file__).resolve().parents[2]
_START_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_NOBODY_LISTENS = "http://127.0.0.1:1/api"

T = TypeVar("T")
Wanted = dict[str, dict[str, str]]
"""group → "repository:tag" → digest"""


@dataclass(frozen=True)
class CentralRegistry:
    """Where the centre keeps images and states; reading, too, needs a user."""

    url: str
    root: Path
    htpasswd: Path
    client: HttpRegistry


@dataclass(frozen=True)
class Centre:
    """Ground Control with its Prefect server and central worker, and its registry."""

    url: str
    prefect_url: str
    central: CentralRegistry
    api: httpx.Client
    """As the administrator."""

    def put_group(self, group: str, images: Mapping[str, str], *others: Mapping[str, Any]) -> None:
        """Make a group exactly these "repository:tag" → digest (empty: what the tag names), and other entries."""
        artifacts = [artifact(reference, digest) for reference, digest in images.items()]
        body = {"group": group, "registry": self.central.url, "artifacts": [*artifacts, *others]}
        answer = self.api.post("/api/groups/sync", json=body)
        assert answer.status_code == 200, answer.text

    def add_satellite(self, name: str, groups: Sequence[str]) -> str:
        """Register a satellite; return its one-time token."""
        answer = self.api.post("/api/satellites", json={"name": name, "groups": list(groups), "config_name": "default"})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    def change_membership(self, method: str, satellite: str, group: str) -> None:
        body = {"satellite": satellite, "group": group}
        answer = self.api.request(method, "/api/groups/satellite", json=body)
        assert answer.status_code == 200, answer.text

    def wait_published(self, satellite: str, wanted: Wanted) -> None:
        """Wait until the satellite's state at the registry names exactly these images."""
        wait_until(lambda: self.published(satellite), lambda found: found == wanted, f"{satellite} to be told {wanted}")

    def published(self, satellite: str) -> Wanted | None:
        """Read what the satellite is told to hold, from the registry as it would."""
        repository = f"satellite/satellite-state/{satellite}/state"
        try:
            state = read_state(self.central.client, repository, "latest")
            return {pin["group"]: self._group_state(pin["state"]) for pin in state["groups"]}
        except RemoteError as error:
            if error.status != 404:
                raise
            return None

    def state_digest(self, satellite: str) -> str:
        """Return the digest of the satellite's state, as the registry has it."""
        found = self.central.client.manifest_head(f"satellite/satellite-state/{satellite}/state", "latest")
        assert found is not None
        return str(found.digest)

    def status(self, satellite: str) -> dict[str, Any] | None:
        """Return what Ground Control knows about a site; None before its first report."""
        answer = self.api.get(f"/api/satellites/{satellite}/status")
        return None if answer.status_code == 404 else answer.json()

    def wait_status(self, satellite: str, is_it: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until the site's status is as asked."""
        found = wait_until(lambda: self.status(satellite), lambda status: bool(status and is_it(status)), what)
        assert found is not None
        return found

    def _group_state(self, pin: str) -> dict[str, str]:
        place, _, digest = pin.partition("@")
        repository = place.partition("/")[2].rpartition(":")[0]
        document = read_state(self.central.client, repository, digest)
        return {
            f"{item['repository']}:{tag}": item["digest"]
            for item in document["artifacts"]
            for tag in item["tag"]
            if not item["deleted"]
        }


@dataclass(frozen=True)
class HarborCentre:
    """A Ground Control whose source is a Harbor, without a Prefect of its own; its tokens are short-lived."""

    url: str
    harbor_url: str
    environment: Mapping[str, str]
    api: httpx.Client

    def robots(self) -> list[dict[str, Any]]:
        """Return the robots as the Harbor has them."""
        answer = httpx.get(f"{self.harbor_url}/api/v2.0/robots?page_size=100", auth=HARBOR_ADMIN, trust_env=False)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def delete_robot(self, satellite: str) -> None:
        """Delete a satellite's robot, as somebody may do in Harbor's own pages."""
        (robot,) = [robot for robot in self.robots() if robot["name"] == f"robot${satellite}"]
        answer = httpx.delete(f"{self.harbor_url}/api/v2.0/robots/{robot['id']}", auth=HARBOR_ADMIN, trust_env=False)
        assert answer.status_code == 200, answer.text


def artifact(reference: str, digest: str = "", *, deleted: bool = False) -> dict[str, Any]:
    """Write an entry of a group as the original's clients do."""
    repository, _, tag = reference.partition(":")
    return {"repository": repository, "tag": [tag], "type": "IMAGE", "digest": digest, "deleted": deleted}


def wait_until(look: Callable[[], T], is_it: Callable[[T], bool], what: str) -> T:
    """Look again and again until what is found is as asked; fail when patience ends."""
    deadline = time.monotonic() + PUBLISHING_SECONDS
    while True:
        found = look()
        if is_it(found):
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PUBLISHING_SECONDS:.0f} s for {what}; last seen: {found}")
        time.sleep(_LOOK_SECONDS)


def read_state(registry: HttpRegistry, repository: str, reference: str) -> dict[str, Any]:
    """Read a state as the original's satellites do: an image with one ``artifacts.json``."""
    manifest = json.loads(registry.manifest_get(repository, reference).raw)
    (layer,) = manifest["layers"]
    archive = io.BytesIO(gzip.decompress(read_blob(registry, repository, layer["digest"])))
    with tarfile.open(fileobj=archive) as files:
        opened = files.extractfile("artifacts.json")
        assert opened is not None
        document: dict[str, Any] = json.load(opened)
        return document


@contextmanager
def run_centre(folder: Path) -> Iterator[Centre]:
    """Run a whole centre until the context ends."""
    port, prefect_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    with _central_registry(folder / "central") as central:
        environment = _environment(folder / "ground-control", port) | {
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_KIND": "oci",
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_URL": central.url,
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_USERNAME": USERNAME,
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_PASSWORD": PASSWORD,
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_HTPASSWD": str(central.htpasswd),
        }
        argv = (*CLI, "ground-control", "serve", "--prefect-port", str(prefect_port))
        with running("ground control", argv, environment, folder, f"{url}/ping"), _administrator(url) as api:
            yield Centre(url, f"http://127.0.0.1:{prefect_port}/api", central, api)


@contextmanager
def run_harbor_centre(folder: Path, projects: Sequence[str]) -> Iterator[HarborCentre]:
    """Run a Ground Control over a fake Harbor that has these projects."""
    port, api_port = free_port(), free_port()
    url, api_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{api_port}"
    options = [option for project in projects for option in ("--project", project)]
    argv = (sys.executable, "-m", "tests.fakes.harbor", "--port", str(api_port), *options)
    folder.mkdir(parents=True)
    with (
        run_embedded(folder / "registry") as registry,
        running("harbor", argv, {"PYTHONPATH": str(_PROJECT)}, folder, f"{api_url}/api/v2.0/ping"),
        serve_front(registry.url, api_url) as harbor_url,
    ):
        username, password = HARBOR_ADMIN
        environment = _environment(folder / "ground-control", port) | {
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_KIND": "harbor",
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_URL": harbor_url,
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_USERNAME": username,
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_PASSWORD": password,
            "HARBOR_SATELLITE_GROUND_CONTROL_TOKEN_TTL_SECONDS": str(SHORTEST_TOKEN_SECONDS),
            "PREFECT_API_URL": _NOBODY_LISTENS,
        }
        argv = (*CLI, "ground-control", "serve")
        with running("ground control", argv, environment, folder, f"{url}/ping"), _administrator(url) as api:
            yield HarborCentre(url, harbor_url, environment, api)


@contextmanager
def running(name: str, argv: Sequence[str], environment: Mapping[str, str], folder: Path, url: str) -> Iterator[Child]:
    """Run a process until the context ends; its log goes to ``folder/logs``."""
    child = Child(name, argv, env=environment, log=folder / "logs" / f"{name.replace(' ', '-')}.log")
    try:
        child.wait_for(url, _START_SECONDS)
        yield child
    finally:
        child.stop()


@contextmanager
def _central_registry(folder: Path) -> Iterator[CentralRegistry]:
    """Run CNCF distribution where it is on PATH, else the embedded registry."""
    credentials = Credentials(USERNAME, SecretStr(PASSWORD))
    if shutil.which("registry"):
        with (
            run_cncf(folder, has_password=True) as started,
            HttpRegistry(started.url, credentials=credentials) as client,
        ):
            yield CentralRegistry(started.url, started.root, folder / "htpasswd", client)
        return
    address = f"127.0.0.1:{free_port()}"
    url, root, htpasswd = f"http://{address}", folder / "data", folder / "htpasswd"
    folder.mkdir(parents=True)
    set_password(htpasswd, USERNAME, PASSWORD)
    argv = (*CLI, "edge", "registry", "--root", str(root), "--listen", address, "--htpasswd", str(htpasswd))
    with (
        running("central registry", (*argv, "--authenticated-read"), {}, folder, f"{url}/v2/"),
        HttpRegistry(url, credentials=credentials) as client,
    ):
        yield CentralRegistry(url, root, htpasswd, client)


@contextmanager
def _administrator(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as api:
        answer = api.post("/login", json={"username": "admin", "password": ADMIN_PASSWORD})
        assert answer.status_code == 200, answer.text
        api.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        yield api


def _environment(data_dir: Path, port: int) -> dict[str, str]:
    return {
        "HARBOR_SATELLITE_GROUND_CONTROL_PORT": str(port),
        "HARBOR_SATELLITE_GROUND_CONTROL_DATA_DIR": str(data_dir),
        "HARBOR_SATELLITE_GROUND_CONTROL_ADMIN_PASSWORD": ADMIN_PASSWORD,
    }
