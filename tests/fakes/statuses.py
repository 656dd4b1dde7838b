"""Statuses of made-up sites, in the states that a technician meets."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from harbor_satellite.satellite.status import (
    DiskStatus,
    FailureStatus,
    GroupStatus,
    ImagesStatus,
    ImageStatus,
    LastRunStatus,
    LinkStatus,
    RegistrationStatus,
    RegistryStatus,
    RunStatus,
    RuntimeStatus,
    ServiceStatus,
    SiteStatus,
    StateStatus,
)

NOW: Final = datetime(2026, 11, 23, 7, 12, 31, tzinfo=UTC)
GB: Final = 1000**3
_TILLS: Final = ("till", "scale", "kitchen-display", "loyalty", "label-printer", "door-counter")


def well() -> SiteStatus:
    """Return a site on which nothing is wrong."""
    return SiteStatus(
        made_at=NOW,
        version="0.1.0",
        ground_control_url="https://ground-control.example.com",
        disk=DiskStatus("/var/lib/harbor-satellite", 41 * GB, 23 * GB, 64 * GB, 2 * GB),
        registry=RegistryStatus("zot", "http://127.0.0.1:8585", is_answering=True),
        registration=RegistrationStatus(
            "shop-0042",
            "https://harbor.example.com",
            "harbor.example.com/satellite/satellite-state/shop-0042/state:latest",
            NOW - timedelta(days=12),
            NOW + timedelta(days=18),
        ),
        state=StateStatus(
            digest="sha256:" + "5f2c" * 16,
            is_converged=True,
            applied_at=NOW - timedelta(days=2, hours=5),
            published_at=NOW - timedelta(days=2, hours=5),
            groups=(GroupStatus("shops", 17), GroupStatus("kiosk", 4)),
            config_digest="sha256:" + "9a" * 32,
        ),
        runs=RunStatus(
            schedule="0 * * * *",
            timezone="Europe/Berlin",
            next_at=NOW + timedelta(minutes=47, seconds=29),
            last=LastRunStatus(
                NOW - timedelta(minutes=11),
                3.4,
                "done",
                "0 copied, 12 kept, 0 deleted, 0 failed; 5312 bytes from the source in 3.4 s",
                5312,
            ),
        ),
        images=_images(12),
        link=LinkStatus(
            measured_bytes_per_second=240_000,
            limit_bytes_per_second=500_000,
            bytes_today=112_000_000,
            daily_bytes=500_000_000,
            bytes_this_month=3_200_000_000,
            windows=("Mon-Fri 22:00-09:00", "Sat,Sun"),
            closes_at=NOW + timedelta(minutes=47, seconds=29),
        ),
        agent_alive_at=NOW - timedelta(seconds=12),
        services=(
            ServiceStatus("registry", is_running=True, pid=812, started_at=NOW - timedelta(days=9)),
            ServiceStatus(
                "agent", is_running=True, pid=830, started_at=NOW - timedelta(days=4), restarts=1, last_end="exit 75"
            ),
        ),
        runtimes=(RuntimeStatus("containerd", NOW - timedelta(days=12)),),
    )


def unregistered() -> SiteStatus:
    """Return a site that was switched on and never registered."""
    return SiteStatus(
        made_at=NOW,
        version="0.1.0",
        ground_control_url="",
        disk=well().disk,
        registry=RegistryStatus("zot", "http://127.0.0.1:8585", is_answering=True),
        services=well().services,
        agent_alive_at=NOW,
    )


def away() -> SiteStatus:
    """Return a site whose link is away for three days, in the middle of a roll-out."""
    since = NOW - timedelta(days=3, hours=2)
    site = well()
    reason = "UntrustedDataError: digest mismatch for acme/scale: <b>got</b> sha256:9f86d081884c7d65…"
    return replace(
        site,
        state=replace(site.state, is_converged=False, applied_at=since - timedelta(days=4)),
        runs=replace(
            site.runs,
            last=LastRunStatus(
                NOW - timedelta(minutes=11), 0, "failed", "cannot reach https://harbor.example.com: timed out"
            ),
            failing_since=since,
        ),
        failures=(
            FailureStatus("acme/scale:v3.1", reason, since - timedelta(days=1), NOW + timedelta(hours=2)),
            FailureStatus("acme/loyalty:v9", "RemoteError: HTTP 503 from https://harbor.example.com", since),
        ),
        link=replace(site.link, away_since=since, away_reason="connection timed out", bytes_today=0),
        receipts_waiting=74,
    )


def disk_full() -> SiteStatus:
    """Return a site whose disk is nearly full."""
    site = well()
    return replace(site, disk=DiskStatus("/var/lib/harbor-satellite", GB, 63 * GB, 64 * GB, 2 * GB))


def many_images(count: int = 300) -> SiteStatus:
    """Return a site with many images."""
    return replace(well(), images=_images(count))


def _images(count: int) -> ImagesStatus:
    names = [
        f"acme/{_TILLS[number % len(_TILLS)]}:v{number // len(_TILLS) + 1}.{number % 7}" for number in range(count)
    ]
    sizes = [38_000_000 + 7_919_000 * (number % 23) for number in range(count)]
    listed = tuple(ImageStatus(name, size) for name, size in zip(sorted(names), sizes, strict=True))
    return ImagesStatus(count, sum(sizes), listed)
