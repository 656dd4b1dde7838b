"""A site that is at work with one image, and what the centre's Prefect knows of its runs."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from harbor_satellite.satellite.store import SatelliteStore
from tests.acceptance import artifacts, asking
from tests.acceptance.centre import wait_until
from tests.acceptance.edge_site import EdgeSite, Puller

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.acceptance.centre import Centre
    from tests.fakes.host import Host

FAR_AWAY = "0 3 1 1 *"
TAG = "stable"
_UNDER_WAY = ("PENDING", "RUNNING", "CANCELLING")


class Shop:
    """A site on a host of its own, that follows a group of one image; its schedule is due once a year.

    Args:
        name: of its satellite, its group and the project of its image.
        folder: a new one.
        centre: where it registers.
        host: where it runs; reaches Ground Control and Harbor.
        settings: of the site.
    """

    def __init__(self, name: str, folder: Path, centre: Centre, host: Host, **settings: str) -> None:
        self.name, self.centre, self.host = name, centre, host
        self.repository = f"{name}/app"
        self.site = EdgeSite(name, folder, centre, host, **settings)
        self.store = SatelliteStore(self.site.data_dir)
        self._count = self._missed = 0

    @property
    def ground_control_port(self) -> int:
        return urlsplit(self.centre.url).port or 0

    @property
    def harbor_port(self) -> int:
        return urlsplit(self.centre.central.url).port or 0

    @property
    def prefect_port(self) -> int:
        return urlsplit(self.centre.prefect_url).port or 0

    def open(self) -> float:
        """Make the satellite, start the site, wait until it has its image; gives how long that took (seconds)."""
        digest = self.publish(is_awaited=False)
        body = {"name": self.name, "groups": [self.name], "config_name": "default", "schedule": FAR_AWAY}
        answer = self.centre.api.post("/api/satellites", json=body)
        assert answer.status_code == 200, answer.text
        self.site.start(answer.json()["token"])
        wait_until((self.site.data_dir / "registration.json").exists, bool, "the site to be registered")
        registered = time.monotonic()
        self.wait(digest)
        return time.monotonic() - registered

    def be_well(self) -> None:
        """Wait until the site is at work, with a whole link and no run under way, whatever was done to it before."""
        self.host.restore()
        self.host.unthrottle()
        if self.site.is_stopped:
            self.site.start()
        wait_until(lambda: self.site.tag(self.repository, TAG), bool, "the registry to serve")
        self.wait_quiet()

    def publish(self, *sizes: int, is_awaited: bool = True) -> str:
        """Move the tag to a new image, and tell the centre; returns its digest once the centre has published it.

        Args:
            sizes: of its layers (bytes); none: two small ones.
            is_awaited: whether to wait for the site's state.
        """
        self._count += 1
        central, reference = self.centre.central.client, f"{self.repository}:{TAG}"
        if sizes:
            digest = artifacts.push_large_image(central, f"{reference}", *(size + self._count for size in sizes))
        else:
            digest = artifacts.push_oci_image(central, reference, f"{self.name}-{self._count}")
        self.centre.put_group(self.name, {reference: digest})
        if is_awaited:
            self.centre.wait_published(self.name, {self.name: {reference: digest}})
        return digest

    def wait(self, digest: str) -> float:
        """Wait until the site serves this; gives for how long (seconds)."""
        before = time.monotonic()
        self.site.wait_tag(self.repository, TAG, digest)
        return time.monotonic() - before

    def pulling(self) -> Puller:
        return Puller(self.site, self.repository, TAG)

    def miss_a_run(self) -> None:
        """Have the last run be long ago, and one be due since: the site is told so by a schedule of its own."""
        self._missed += 1
        self.site.env_file.write_text(f"HARBOR_SATELLITE_SCHEDULE={self._missed} 3 1 1 *\n")
        applied = self.store.applied()
        assert applied.last_run is not None
        long_ago = applied.last_run.finished_at - timedelta(days=400)
        (self.site.data_dir / "rest.json").unlink(missing_ok=True)
        self.store.save_applied(replace(applied, last_run=replace(applied.last_run, finished_at=long_ago)))

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """Return the satellite's flow runs of `replicate-state`, oldest first; of all states if none is named."""
        body: dict[str, Any] = {
            "deployments": {"tags": {"all_": [f"satellite:{self.name}"]}},
            "flows": {"name": {"any_": ["replicate-state"]}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        if states:
            body["flow_runs"] = {"state": {"type": {"any_": list(states)}}}
        return self._ask("flow_runs", body)

    def ended(self) -> str:
        """Return how the last run ended that was asked for, by a person or an event."""
        return str([run for run in self.runs() if not run["auto_scheduled"]][-1]["state_type"])

    def tasks(self, run: str) -> dict[str, str]:
        """Return the states of a run's tasks."""
        found = self._ask("task_runs", {"flow_runs": {"id": {"any_": [run]}}})
        return {item["name"]: item["state_type"] for item in found}

    def log(self, run: str) -> str:
        """Return what a run has logged."""
        found = self._ask("logs", {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"})
        return "\n".join(item["message"] for item in found)

    def wait_quiet(self) -> None:
        """Wait until Prefect has no run of the site any more that has begun, or could."""
        wait_until(lambda: [run["state_type"] for run in self._open_runs()], lambda found: not found, "no run")

    def wait_run(self, is_it: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait for a run."""
        found = wait_until(lambda: [run for run in self.runs() if is_it(run)], bool, what)
        return found[-1]

    def receipts(self) -> list[str]:
        """Return the states that the site has reported, oldest report first."""
        answer = self.centre.api.get(f"/api/satellites/{self.name}/reports")
        assert answer.status_code == 200, answer.text
        reports = sorted(answer.json(), key=lambda report: report["id"])
        return [report["latest_state_digest"] for report in reports]

    def _open_runs(self) -> list[dict[str, Any]]:
        return [
            run
            for run in self.runs("SCHEDULED", *_UNDER_WAY)
            if run["state_type"] in _UNDER_WAY or not run["auto_scheduled"]
        ]

    def _ask(self, what: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        answer = asking.post(f"{self.centre.prefect_url}/{what}/filter", json=body)
        assert answer.status_code == httpx.codes.OK, answer.text
        found: list[dict[str, Any]] = json.loads(answer.content)
        return found
