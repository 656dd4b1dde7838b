"""The agent as a process: it replicates while the centre is away, and ends within seconds, whatever it is at."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from harbor_satellite.demo.images import AMD64, layer, push_image, tag_image
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.server import create_registry_app
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.artifact import StateArtifact, StateEntry, state_artifact_json
from harbor_satellite.state.names import GroupName, SatelliteName, group_state_repository, satellite_state_repository
from harbor_satellite.state.satellite_state import SatelliteState, StatePin, satellite_state_json
from harbor_satellite.state.wire import Registration
from tests.fixtures_ground_control import serve, wait_for
from tests.ports import free_port
from tests.unit.satellite.site import put_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
_AGENT: Final = (
    sys.executable,
    "-c",
    "from harbor_satellite.cli import main; main()",
    "--log-level",
    "INFO",
    "edge",
    "agent",
)
_STOP_SECONDS: Final = 10.0


@dataclass
class Running:
    """An agent at work."""

    process: subprocess.Popen[bytes]
    log: Path

    def says(self, text: str, seconds: float = 60.0) -> None:
        """Wait until the agent's log says something."""
        wait_for(lambda: text in self.log.read_text() or self.process.poll() is not None, text, seconds)
        assert text in self.log.read_text()

    def stop(self) -> tuple[int, float]:
        """Tell it to stop; return its exit status and how long that took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_SECONDS + 5), time.monotonic() - began


@dataclass
class Shop:
    """A site, its source, and the settings of its agent."""

    data_dir: Path
    source: LayoutRegistry
    local: LayoutRegistry
    environment: dict[str, str]

    @property
    def store(self) -> SatelliteStore:
        return SatelliteStore(self.data_dir)

    def publish(self, *repositories: str) -> None:
        """Give the shop a state with an image in each repository."""
        entries = []
        for repository in repositories:
            found = push_image(self.source, repository, AMD64, [layer(repository, 2000)])
            tag_image(self.source, repository, "v1", found)
            entries.append(StateEntry(repository, ("v1",), found.digest, deleted=False, referrers=()))
        group, host = GroupName("all"), self.source_url.removeprefix("http://")
        state = StateArtifact(group, self.source_url, tuple(sorted(entries, key=lambda item: item.repository)), 1)
        digest = put_state(self.source, group_state_repository(group), state_artifact_json(state))
        pin = StatePin(group, Reference(host, group_state_repository(group), "latest", digest), 1, is_rollback=False)
        whole = SatelliteState(SatelliteName("shop"), (pin,))
        put_state(self.source, satellite_state_repository(SatelliteName("shop")), satellite_state_json(whole))

    source_url: str = ""

    def register(self, prefect_api_url: str) -> None:
        self.store.save_registration(
            Registration.model_validate(
                {
                    "auth": {"url": self.source_url, "username": "", "password": ""},
                    "state": f"{self.source_url}/{satellite_state_repository(SatelliteName('shop'))}:latest",
                    "satellite": "shop",
                    "prefect_api_url": prefect_api_url,
                    "schedule": "0 * * * *",
                }
            )
        )

    @contextmanager
    def agent(self, **settings: str) -> Iterator[Running]:
        log = self.data_dir.parent / "agent.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                _AGENT, env={**os.environ, **self.environment, **settings}, stdout=file, stderr=file
            )
        try:
            yield Running(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with ExitStack() as stack:
        source, local = (stack.enter_context(LayoutRegistry(tmp_path / name)) for name in ("source", "local"))
        urls = [
            stack.enter_context(serve(create_registry_app(registry, None, allow_anonymous_writes=True)))
            for registry in (source, local)
        ]
        environment = {
            "HARBOR_SATELLITE_DATA_DIR": str(tmp_path / "edge"),
            "HARBOR_SATELLITE_ENV_FILE": str(tmp_path / "satellite.env"),
            "HARBOR_SATELLITE_GROUND_CONTROL_URL": f"http://127.0.0.1:{free_port()}",
            "HARBOR_SATELLITE_LOCAL_REGISTRY_URL": urls[1],
            "HARBOR_SATELLITE_STATUS_LISTEN": "",
            "HARBOR_SATELLITE_DISK_RESERVE_BYTES": "0",
        }
        yield Shop(tmp_path / "edge", source, local, environment, urls[0])


def test_site_replicates_within_seconds_of_its_start_though_the_centre_is_away(shop: Shop) -> None:
    shop.publish("library/app")
    shop.register(f"http://127.0.0.1:{free_port()}/api")

    with shop.agent() as agent:
        agent.says("ran without Prefect")
        status, seconds = agent.stop()

    assert shop.local.manifest_get("library/app", "v1").digest
    assert shop.store.applied().is_converged
    assert (status, seconds < _STOP_SECONDS) == (0, True)
    assert (shop.data_dir / "agent.alive").exists()


def test_site_without_prefect_keeps_time_by_itself(shop: Shop) -> None:
    shop.publish("library/app")
    shop.register("")

    with shop.agent() as agent:
        agent.says("ran without Prefect")

        assert "this site keeps time by itself" in agent.log.read_text()
        assert agent.stop()[0] == 0


def test_agent_that_waits_for_ground_control_ends_at_once(shop: Shop) -> None:
    with shop.agent(HARBOR_SATELLITE_TOKEN="a-token") as agent:
        agent.says("not registered yet")
        status, seconds = agent.stop()

    assert (status, seconds < _STOP_SECONDS) == (0, True)


def test_agent_in_the_middle_of_a_run_ends_at_once_and_the_next_one_goes_on(shop: Shop) -> None:
    shop.publish("library/app")
    with silent_server() as url:
        shop.register("")
        registration = shop.store.registration()
        auth = registration.auth.model_copy(update={"url": url})
        state = registration.state.replace(shop.source_url, url)
        shop.store.save_registration(registration.model_copy(update={"auth": auth, "state": state}))
        with shop.agent() as agent:
            agent.says("running without Prefect")
            status, seconds = agent.stop()
    assert (status, seconds < _STOP_SECONDS) == (0, True)

    shop.register("")
    with shop.agent() as agent:
        agent.says("ran without Prefect")
        agent.stop()
    assert shop.store.applied().is_converged


def test_agent_asks_to_be_started_again_when_its_poll_interval_changes(shop: Shop, tmp_path: Path) -> None:
    shop.publish("library/app")
    shop.register("")

    with shop.agent() as agent:
        agent.says("ran without Prefect")
        (tmp_path / "satellite.env").write_text("HARBOR_SATELLITE_POLL_INTERVAL_SECONDS=120\n")

        assert agent.process.wait(30) == 75


@contextmanager
def silent_server() -> Iterator[str]:
    """Listen, take requests, and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
