"""How a site replicates: plain values, read once from its settings and handed to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.oci.platform import Platform

DEFAULT_RESERVE_BYTES: Final = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WanLimits:
    """What the link to the source may carry, and when; the default sets no limit."""

    bytes_per_second: int | None = None
    daily_bytes: int | None = None
    """Cap on what is read from the source in one day of the site's time zone."""
    monthly_bytes: int | None = None
    windows: tuple[str, ...] = ()
    """When bytes may move, such as ``Mon-Fri 22:00-06:00``; empty: always."""
    timezone: str = "UTC"
    """IANA name; days, months and windows are the site's own."""


@dataclass(frozen=True, slots=True)
class ReplicationOptions:
    """How a site goes about a replication."""

    image_workers: int = 4
    """Images on their way at once."""
    blob_workers: int = 8
    """Blobs of all images on their way at once."""
    platforms: tuple[Platform, ...] = ()
    """Children of indexes to bring for groups that do not choose themselves; empty: all."""
    is_deep: bool = False
    """Ask for every blob of what seems to be there, instead of trusting the manifest."""
    is_asked_for: bool = False
    """An operator asks now: images in quarantine are tried before their time."""
    image_keys: tuple[str, ...] = ()
    """Public keys (PEM), one of which must have signed every image, besides what its groups ask for; empty: nobody."""
    state_keys: tuple[str, ...] = ()
    """Public keys (PEM), one of which must have signed the states; empty: nobody must."""
    cosign: str = "cosign"
    """The program that checks signatures: a name on PATH, or a path."""
    wan: WanLimits = WanLimits()
    storage: Path | None = None
    """A folder on the disk that the local registry fills; None: the satellite's own folder."""
    disk_reserve_bytes: int = DEFAULT_RESERVE_BYTES
    """Free bytes of that disk that a replication never touches."""
