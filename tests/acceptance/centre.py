"""The centre under test: processes, spoken to over Ground Control's HTTP API and the registry's."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from harbor_satellite.errors import RemoteError
from harbor_satellite.processes import Child
from harbor_satellite.state.names import SatelliteName, work_pool_name
from tests.acceptance import asking
from tests.acceptance.artifacts import read_blob
from tests.acceptance.harbor import run_harbor
from tests.fakes.harbor_accounts import ADMIN
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import httpx

    from harbor_satellite.registry.client import HttpRegistry
    from tests.acceptance.harbor import CentralRegistry


CLI = (sys.executable, "-c", "from harbor_satellite.cli import main; main()")
ADMIN_PASSWORD = "Acceptance-1"
PUBLISHING_SECONDS = 100.0  # of patience; it takes a few
_START_SECONDS = 240.0
_LOOK_SECONDS = 0.1, 0.5
"""Between two looks: at first, and after a while, since each look is work for the machine that is waited for."""
_ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

T = TypeVar("T")
Wanted = dict[str, dict[str, str]]
"""group → "repository:tag" → digest"""


@dataclass(frozen=True)
class Centre:
    """Ground Control with its Prefect server and central worker, and its Harbor."""

    url: str
    prefect_url: str
    central: CentralRegistry
    api: httpx.Client
    """As the administrator."""
    environment: Mapping[str, str]
    """Of Ground Control's processes."""

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

    def run_flow(self, deployment: str, **parameters: Any) -> str:
        """Have the central worker run a flow now, as its schedule would, and wait; gives how it ended."""
        found = asking.get(f"{self.prefect_url}/deployments/name/{deployment}")
        assert found.status_code == 200, found.text
        url = f"{self.prefect_url}/deployments/{found.json()['id']}/create_flow_run"
        made = asking.post(url, json={"parameters": parameters})
        assert made.status_code == 201, made.text
        run = f"{self.prefect_url}/flow_runs/{made.json()['id']}"
        look = lambda: str(asking.get(run).json()["state_type"])  # noqa: E731 - one line each
        return wait_until(look, lambda state: state in _ENDED, f"{deployment} to end")

    def deployed(self, satellite: str) -> set[str]:
        """Return what Prefect has for a satellite: deployments by their flow's name, and ``pool``."""
        body = {"deployments": {"tags": {"all_": [f"satellite:{satellite}"]}}}
        found = asking.post(f"{self.prefect_url}/deployments/filter", json=body)
        assert found.status_code == 200, found.text
        pool = asking.get(f"{self.prefect_url}/work_pools/{work_pool_name(SatelliteName(satellite))}")
        entrypoints = {item["entrypoint"].rpartition(":")[2] for item in found.json()}
        return entrypoints | ({"pool"} if pool.status_code == 200 else set())

    def claim(self, token: str) -> tuple[str, str]:
        """Claim a one-time token as a site does; gives the credential."""
        answer = asking.post(f"{self.url}/satellites/ztr", json={"token": token, "claim_key": "key"})
        assert answer.status_code == 200, answer.text
        auth = answer.json()["auth"]
        return auth["username"], auth["password"]

    def report(self, satellite: str, auth: tuple[str, str]) -> httpx.Response:
        """Report as a site that has nothing to say."""
        body = {"name": satellite, "state_report_interval": "30s"}
        return asking.post(f"{self.url}/satellites/sync", json=body, auth=auth)

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


def artifact(reference: str, digest: str = "", *, deleted: bool = False) -> dict[str, Any]:
    """Write an entry of a group as the original's clients do."""
    repository, _, tag = reference.partition(":")
    return {"repository": repository, "tag": [tag], "type": "IMAGE", "digest": digest, "deleted": deleted}


def wait_until(look: Callable[[], T], is_it: Callable[[T], bool], what: str) -> T:
    """Look again and again until what is found is as asked; fail when patience ends."""
    deadline = time.monotonic() + PUBLISHING_SECONDS
    pause, longest = _LOOK_SECONDS
    while True:
        found = look()
        if is_it(found):
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PUBLISHING_SECONDS:.0f} s for {what}; last seen: {found}")
        time.sleep(pause)
        pause = min(pause * 1.2, longest)


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
def run_centre(folder: Path, database_url: str) -> Iterator[Centre]:
    """Run a whole centre until the context ends.

    Args:
        folder: a new one for its files.
        database_url: of Ground Control; empty: an SQLite file.
    """
    port, prefect_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    with run_harbor(folder / "central") as central:
        environment = {
            "HARBOR_SATELLITE_GROUND_CONTROL_PORT": str(port),
            "HARBOR_SATELLITE_GROUND_CONTROL_DATA_DIR": str(folder / "ground-control"),
            "HARBOR_SATELLITE_GROUND_CONTROL_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL": database_url,
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_KIND": "harbor",
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_URL": central.url,
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_USERNAME": ADMIN[0],
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_PASSWORD": ADMIN[1],
        }
        argv = (*CLI, "ground-control", "serve", "--prefect-port", str(prefect_port))
        with running("ground control", argv, environment, folder, f"{url}/ping"), administrator(url) as api:
            yield Centre(url, f"http://127.0.0.1:{prefect_port}/api", central, api, environment)


@contextmanager
def run_second(centre: Centre, folder: Path, *, prefect_url: str = "", **settings: str) -> Iterator[str]:
    """Run another Ground Control on the same database, Harbor and Prefect; gives its address.

    Args:
        centre: the first.
        folder: for its log.
        prefect_url: of another Prefect; empty: the same.
        settings: what is different, such as ``TOKEN_TTL_SECONDS``.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    own = {"PORT": str(port)} | settings
    environment = {
        **centre.environment,
        **{f"HARBOR_SATELLITE_GROUND_CONTROL_{name}": value for name, value in own.items()},
        "PREFECT_API_URL": prefect_url or centre.prefect_url,
    }
    with running("second ground control", (*CLI, "ground-control", "serve"), environment, folder, f"{url}/ping"):
        yield url


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
def administrator(url: str) -> Iterator[httpx.Client]:
    """Log in to Ground Control as its first user."""
    with asking.client(base_url=url) as api:
        answer = api.post("/login", json={"username": "admin", "password": ADMIN_PASSWORD})
        assert answer.status_code == 200, answer.text
        api.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        yield api
