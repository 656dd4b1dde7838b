"""How fast the source was read by the last run that read enough of it to tell.

Kept in a file of its own: runs that find nothing to do replace the record of the last run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import StorageError

if TYPE_CHECKING:
    from harbor_satellite.satellite.applied import LastRun
    from harbor_satellite.satellite.store import SatelliteStore

LINK_FILE: Final = "link.json"
ENOUGH_BYTES: Final = 1024 * 1024
"""Less is read in a few round trips, and says nothing about the line."""
_KEY: Final = "bytes_per_second"


def measured_rate(run: LastRun | None) -> int | None:
    """Return bytes per second of a run, from its first request to its end; None: it read too little."""
    if run is None or run.bytes_from_source < ENOUGH_BYTES or run.seconds <= 0:
        return None
    return int(run.bytes_from_source / run.seconds)


def link_rate(store: SatelliteStore, run: LastRun | None) -> int | None:
    """Return what the last run that could tell has measured, and keep it; None: none could yet.

    A disk that takes no more, or a damaged file, must not keep a site from reporting.
    """
    measured = measured_rate(run)
    try:
        known = (store.read_document(LINK_FILE) or {}).get(_KEY)
        if measured is not None and measured != known:
            store.write_document(LINK_FILE, {_KEY: measured})
    except StorageError:
        return measured
    known = known if isinstance(known, int) and known >= 0 else None
    return known if measured is None else measured
