"""A site's status in numbers, as Prometheus reads them.

Made anew for each scrape from what is on disk: nothing is counted in between. Labels are names of services and of
tools, never of images, groups or anything else that a peer can make more of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from harbor_satellite.satellite.health import health_of, not_ready, problems_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from prometheus_client.metrics_core import Metric

    from harbor_satellite.satellite.status import SiteStatus

_PREFIX: Final = "harbor_satellite_site_"
_HEALTHS: Final = ("well", "attention", "failing")


def render_metrics(status: SiteStatus) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_StatusCollector(status))
    return generate_latest(registry)


class _StatusCollector(Collector):
    def __init__(self, status: SiteStatus) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        """Name nothing: it is asked once."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the numbers; what is not known is left out."""
        status = self._status
        yield InfoMetricFamily(f"{_PREFIX}version", "Version of the software", {"version": status.version})
        health = GaugeMetricFamily(f"{_PREFIX}health", "1 for the word that holds", labels=("health",))
        found = health_of(problems_of(status))
        for word in _HEALTHS:
            health.add_metric((word,), float(word == found))
        yield health
        for name, (value, meaning) in {**_state(status), **_runs(status), **_link(status), **_room(status)}.items():
            if value is not None:
                yield GaugeMetricFamily(f"{_PREFIX}{name}", meaning, value=float(value))
        yield from _services(status)


_Numbers = dict[str, tuple[float | None, str]]


def _state(status: SiteStatus) -> _Numbers:
    state, registration = status.state, status.registration
    expires_at = registration.credential_expires_at if registration else None
    return {
        "registered": (registration is not None, "1: the site is registered"),
        "credential_expires_timestamp_seconds": (_seconds(expires_at), "When the credential ends"),
        "ready": (not not_ready(status), "1: registered, something was applied, and the local registry answers"),
        "converged": (state.is_converged, "1: the site is wholly on its state"),
        "state_applied_timestamp_seconds": (_seconds(state.applied_at), "When the site last became so"),
        "rolled_back": (state.is_rolled_back, "1: somebody went back to the generation before"),
        "groups": (len(state.groups), "Groups that the site follows"),
        "images": (status.images.count, "Images that the satellite put into the local registry"),
        "images_bytes": (status.images.size_bytes, "Their size; shared layers count for each"),
        "images_failed": (len(status.failures), "Images that could not be brought"),
    }


def _runs(status: SiteStatus) -> _Numbers:
    runs, last = status.runs, status.runs.last
    return {
        "run_active": (runs.running_since is not None, "1: a run is under way"),
        "next_run_timestamp_seconds": (_seconds(runs.next_at), "When the next run is due"),
        "failing_since_timestamp_seconds": (_seconds(runs.failing_since), "Since when runs fail as a whole"),
        "last_run_timestamp_seconds": (_seconds(last.finished_at) if last else None, "When the last run ended"),
        "last_run_failed": (last.outcome == "failed" if last else None, "1: it failed as a whole"),
        "last_run_duration_seconds": (last.seconds if last else None, "How long it took"),
        "last_run_source_bytes": (last.bytes_from_source if last else None, "Bytes it read from the source"),
        "last_run_copied": (last.copied_count if last else None, "Images it copied"),
        "last_run_deleted": (last.deleted_count if last else None, "Images it deleted"),
    }


def _link(status: SiteStatus) -> _Numbers:
    link = status.link
    return {
        "source_bytes_today": (link.bytes_today, "Bytes read from the source, by the site's calendar"),
        "source_bytes_this_month": (link.bytes_this_month, "Bytes read from the source, by the site's calendar"),
        "source_cap_bytes_per_day": (link.daily_bytes, "Cap on them"),
        "source_cap_bytes_per_month": (link.monthly_bytes, "Cap on them"),
        "link_bytes_per_second": (link.measured_bytes_per_second, "As the last run measured that could tell"),
        "sync_window_open": (link.is_open, "1: bytes may move by the clock"),
        "centre_away_since_timestamp_seconds": (_seconds(link.away_since), "Since when Ground Control is out of reach"),
        "reports_waiting": (status.receipts_waiting, "Reports that the centre does not have yet"),
    }


def _room(status: SiteStatus) -> _Numbers:
    disk = status.disk
    return {
        "disk_free_bytes": (disk.free_bytes if disk else None, "Of the disk that the local registry fills"),
        "disk_total_bytes": (disk.total_bytes if disk else None, "Of the same disk"),
        "disk_reserve_bytes": (disk.reserve_bytes if disk else None, "What a run leaves free"),
        "registry_up": (status.registry.is_answering, "1: the local registry answers"),
        "agent_alive_timestamp_seconds": (_seconds(status.agent_alive_at), "When the agent last was well"),
        "damaged_files": (len(status.damaged), "What could not be read on the disk"),
    }


def _services(status: SiteStatus) -> Iterator[Metric]:
    up = GaugeMetricFamily(f"{_PREFIX}service_up", "1: the process runs", labels=("service",))
    # A gauge: it begins at 0 whenever the supervisor does.
    restarts = GaugeMetricFamily(f"{_PREFIX}service_restarts", "Since the supervisor started", labels=("service",))
    for service in status.services:
        up.add_metric((service.name,), float(service.is_running))
        restarts.add_metric((service.name,), service.restarts)
    yield up
    yield restarts


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
