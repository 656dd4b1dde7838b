"""The agent of a site: registers if need be, then is the site's edge worker until it is told to stop.

Prefect reads its settings when it is first imported, so they are put into the environment before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.credential import open_ground_control, renew_own_credential
from harbor_satellite.edge.proxy import RunningProxy
from harbor_satellite.errors import AuthenticationError, HarborSatelliteError, InvalidInputError, NotFoundError
from harbor_satellite.project import enter
from harbor_satellite.satellite.registration import read_token, register
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.names import satellite_name, work_pool_name

if TYPE_CHECKING:
    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_SECONDS: Final = 2.0
_LONGEST_WAIT_SECONDS: Final = 300.0
_SETTLE_SECONDS: Final = 3.0


def run_agent(settings: SatelliteSettings) -> None:
    """Register, then poll the satellite's work pool and run its flows; returns after SIGTERM or SIGINT.

    Raises:
        AuthenticationError: the one-time token is not good.
        InvalidInputError: there is no token, or no Prefect API to poll.
    """
    _export(settings)
    registration = _registered(settings)
    satellite = satellite_name(registration.satellite)
    proxy = _proxy_to(registration, settings)
    _LOG.info("polling pool=%s api=%s", work_pool_name(satellite), registration.prefect_api_url)
    enter()
    try:
        asyncio.run(_work(work_pool_name(satellite), settings.poll_interval_seconds))
    finally:
        if proxy:  # what it holds still for the centre is worth some seconds, whatever ended the worker
            proxy.stop(_SETTLE_SECONDS)
    # A flow thread that is still copying holds nothing that a restart would miss: it is not waited for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _proxy_to(registration: Registration, settings: SatelliteSettings) -> RunningProxy | None:
    """Start the site's own way to Prefect, and tell Prefect's client; None: an operator has named an API."""
    if os.environ.get("PREFECT_API_URL"):
        return None
    if not registration.prefect_api_url:
        raise InvalidInputError("Ground Control named no Prefect API: set PREFECT_API_URL, or run `edge sync` by cron")
    proxy = RunningProxy(
        SatelliteStore(settings.data_dir),
        verify=str(settings.ca or "") or True,
        renew=lambda: renew_own_credential(settings),
    )
    proxy.start()
    os.environ["PREFECT_API_URL"] = proxy.url
    os.environ["PREFECT_API_AUTH_STRING"] = proxy.auth_string  # a header: a URL would be in logs
    return proxy


def _export(settings: SatelliteSettings) -> None:
    """Put into the environment what flows and Prefect read there."""
    poll = str(settings.poll_interval_seconds)
    os.environ["HARBOR_SATELLITE_GROUND_CONTROL_URL"] = settings.ground_control_url
    os.environ["HARBOR_SATELLITE_DATA_DIR"] = str(settings.data_dir.absolute())
    if settings.ca:
        os.environ["HARBOR_SATELLITE_CA"] = str(settings.ca.absolute())
    if settings.token_file:
        os.environ["HARBOR_SATELLITE_TOKEN_FILE"] = str(settings.token_file.absolute())
    for name, value in {
        "PREFECT_HOME": str(settings.data_dir.absolute() / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": poll,
        "PREFECT_WORKER_PREFETCH_SECONDS": poll,
        # Each of these saves requests over the WAN in every run.
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "DO_NOT_TRACK": "1",
    }.items():
        os.environ.setdefault(name, value)


def _registered(settings: SatelliteSettings) -> Registration:
    store = SatelliteStore(settings.data_dir)
    try:
        return store.registration()
    except NotFoundError:
        pass
    wait_seconds = _FIRST_WAIT_SECONDS
    while True:
        try:
            # Not as a flow: without a credential there is no Prefect to tell of it.
            with open_ground_control(settings) as client:
                register(client, store, read_token(settings.token, settings.token_file))
            return store.registration()
        except (AuthenticationError, InvalidInputError):
            raise  # waiting does not mend a token
        except HarborSatelliteError as error:
            if not error.retryable:
                raise
            _LOG.warning("not registered yet reason=%s wait_seconds=%.0f", error, wait_seconds)
            time.sleep(wait_seconds * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
            wait_seconds = min(wait_seconds * 2, _LONGEST_WAIT_SECONDS)


async def _work(pool: str, poll_seconds: float) -> None:
    from harbor_satellite.edge.worker import EdgeWorker, settle_lost_runs, wait_for_pool  # noqa: PLC0415  (see above)

    worker = EdgeWorker(
        work_pool_name=pool,
        name=pool,
        prefetch_seconds=poll_seconds,
        heartbeat_interval_seconds=max(1, round(poll_seconds)),
        create_pool_if_not_found=False,
        limit=1,
    )

    async def be_worker() -> None:
        await wait_for_pool(pool, poll_seconds)
        await settle_lost_runs(pool)
        await worker.start()

    working = asyncio.ensure_future(be_worker())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        _LOG.info("stopping pool=%s", pool)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(settle_lost_runs(pool), _SETTLE_SECONDS)
