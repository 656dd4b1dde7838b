"""One run without Prefect: the steps of the flow, on the site's own clock."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harbor_satellite.edge.own_site import open_own_site
from harbor_satellite.errors import ConflictError, HarborSatelliteError, PausedError
from harbor_satellite.satellite.sync import sync_satellite

if TYPE_CHECKING:
    from harbor_satellite.edge.timer import End

_LOG = logging.getLogger(__name__)


def run_locally(reason: str) -> End:
    """Replicate as the flow does, and keep the record; what went wrong is on record and in the log, never raised.

    Args:
        reason: why Prefect does not run it, for the log.
    """
    try:
        with open_own_site(is_local=True) as site:
            _LOG.info("running without Prefect reason=%s", reason)
            outcome = sync_satellite(site.engine, site.registration.state)
    except PausedError as error:
        _LOG.info("paused: %s", error)
        return "paused"
    except ConflictError as error:
        _LOG.info("not now: %s", error)
        return "busy"
    except HarborSatelliteError as error:
        _LOG.warning("run without Prefect failed reason=%s", error)
        return "failed"
    except Exception:  # noqa: BLE001  (the timer outlives whatever a run meets)
        _LOG.exception("run without Prefect broke off")
        return "failed"
    _LOG.info("ran without Prefect: %s", outcome.summary())
    return "done"
