"""The agent of a site: registers if need be, works for Prefect, keeps time without it, and shows how it is.

What lives here: what is started, watched and stopped, and in which order. What must not: the parts themselves. A part
that the site can do without (status page, reports, runtimes) never ends the agent.

Prefect reads its settings when it is first imported, so they are put into the environment before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar

from harbor_satellite.edge.credential import renew_own_credential
from harbor_satellite.edge.link import lend
from harbor_satellite.edge.log_lines import adopt_handlers
from harbor_satellite.edge.own_settings import OwnSettings
from harbor_satellite.edge.proxy import RunningProxy
from harbor_satellite.edge.registration import StoppedError, ensure_registered
from harbor_satellite.edge.reporter import Reporter
from harbor_satellite.edge.services import ALIVE_FILE
from harbor_satellite.edge.status_server import StatusServer
from harbor_satellite.edge.threads import in_thread
from harbor_satellite.edge.time_keeper import TimeKeeper
from harbor_satellite.edge.watch import Watch
from harbor_satellite.project import enter
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.names import satellite_name, work_pool_name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_ALIVE_SECONDS: Final = 10.0
# Together less than the supervisor waits for before it kills.
_END_SECONDS: Final = 2.0
_SETTLE_SECONDS: Final = 2.0
_DRAIN_SECONDS: Final = 1.0
_BACK_SPREAD_SECONDS: Final = 30.0
"""Within which a site reports once the centre is back: its whole fleet sees that at once."""


class Part(Protocol):
    """A part that the site can do without."""

    def start(self) -> None:
        """Begin, in a thread of its own."""


P = TypeVar("P", bound=Part)


def run_agent(settings: SatelliteSettings) -> NoReturn:
    """Be the site's agent until SIGTERM or SIGINT; the process ends here, with 75 to be started again at once.

    Raises:
        InvalidInputError: the settings ask for what cannot be.
    """
    _export(settings)
    enter()
    asyncio.run(_live_and_leave(settings))
    raise AssertionError  # the process has ended


async def _live_and_leave(settings: SatelliteSettings) -> NoReturn:
    code = await Agent(settings).live()
    # A thread that is still copying holds nothing that a restart would miss: neither it nor a task is waited for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Agent:
    """Everything that one site's agent does."""

    def __init__(self, settings: SatelliteSettings) -> None:
        self._settings = OwnSettings(settings)
        self._stopping = threading.Event()
        self._proxy: RunningProxy | None = None
        self._reporter: Reporter | None = None
        self._pool = ""

    async def live(self) -> int:
        """Do everything, until told to stop; return the exit status."""
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told.set)
        page = started("status page", lambda: StatusServer(self._settings.own, lambda: self._settings.own))
        alive = asyncio.create_task(self._show_life())
        working, waiting = asyncio.create_task(self._work()), asyncio.create_task(told.wait())
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        _LOG.info("stopping")
        for task in (waiting, alive):
            task.cancel()
        try:
            return await _end_of(working)
        finally:
            await self._let_go()
            stopped("status page", page.stop if page else None)

    async def _show_life(self) -> None:
        """Touch a file from the event loop, by which the supervisor sees that it turns."""
        path = self._settings.own.data_dir / ALIVE_FILE
        while True:
            try:
                path.touch(mode=0o600)
            except OSError as error:
                _LOG.debug("cannot touch %s: %s", path, error.strerror)
            await asyncio.sleep(_ALIVE_SECONDS)

    async def _work(self) -> int:
        settings = self._settings.own
        try:
            registration = await in_thread(lambda: ensure_registered(settings, self._stopping))
        except StoppedError:
            return 0
        # The original's Ground Control names no satellite.
        satellite = registration.satellite or registration.auth.username
        self._proxy = self._proxy_to(registration)
        reporter = self._reporter = started("reporter", lambda: self._make_reporter(satellite))
        if reporter and self._proxy:
            self._proxy.on_back = lambda: reporter.nudge(_BACK_SPREAD_SECONDS)
        has_prefect = bool(os.environ.get("PREFECT_API_URL"))
        keeper = TimeKeeper(self._settings, registration, self._proxy, reporter, has_prefect=has_prefect)
        watch = Watch(self._settings, self._proxy, reporter)
        keeper.is_worker_busy = lambda: watch.is_worker_busy()  # noqa: PLW0108  (set anew with each worker)
        parts: list[Coroutine[Any, Any, int | None]] = [keeper.keep(), watch.keep()]
        if has_prefect:
            self._pool = work_pool_name(satellite_name(satellite))
            _LOG.info("polling pool=%s api=%s", self._pool, registration.prefect_api_url)
            parts.append(self._work_for_prefect(keeper, watch))
        else:
            _LOG.info("Ground Control named no Prefect: this site keeps time by itself")
        return await _first_of(parts)

    def _proxy_to(self, registration: Registration) -> RunningProxy | None:
        """Start the site's own way to Prefect, and tell Prefect's client; None: there is none, or another one."""
        if os.environ.get("PREFECT_API_URL") or not registration.prefect_api_url:
            return None
        settings = self._settings.own
        store = SatelliteStore(settings.data_dir)
        ca = str(settings.ca or store.registered_by().ca or "")
        proxy = RunningProxy(store, verify=ca or True, renew=lambda: renew_own_credential(self._settings.own))
        proxy.start()
        lend(proxy.transport)
        os.environ["PREFECT_API_URL"] = proxy.url
        os.environ["PREFECT_API_AUTH_STRING"] = proxy.auth_string  # a header: a URL would be in logs
        return proxy

    def _make_reporter(self, satellite: str) -> Reporter:
        transport = self._proxy.transport if self._proxy else None
        return Reporter(satellite, transport=transport, load=lambda: self._settings.own)

    async def _work_for_prefect(self, keeper: TimeKeeper, watch: Watch) -> None:
        # In a thread, since importing Prefect takes long on a small machine, and SIGTERM must be heard meanwhile.
        module = await in_thread(_import_workers)
        await module.work_for_ever(
            self._pool,
            self._settings.effective.poll_interval_seconds,
            lambda: keeper.pace().jitter_seconds,
            watch,
            lambda: keeper.look().is_empty,
        )

    async def _let_go(self) -> None:
        """Tell the centre of runs that end with this process, if it can be told, and deliver what waits."""
        reporter, proxy = self._reporter, self._proxy
        stopped("reporter", (lambda: reporter.stop(0.0)) if reporter else None)
        if self._pool and not (proxy and proxy.is_away) and "harbor_satellite.edge.worker" in sys.modules:
            from harbor_satellite.edge.worker import settle_lost_runs  # noqa: PLC0415  (imports Prefect)

            # Prefect's handler sends the lines of a run every two seconds: the last ones may still be here.
            flushing = asyncio.create_task(in_thread(flush_log))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_SECONDS):
                    await settle_lost_runs(self._pool)
                    await flushing
        lend(None)
        if proxy:  # what it holds still for the centre is worth a moment
            proxy.stop(0.0 if proxy.is_away else _DRAIN_SECONDS)


def started(name: str, make: Callable[[], P]) -> P | None:
    """Make and start a part that the site can do without; None: it could not be, and the log says why."""
    try:
        part = make()
        part.start()
    except Exception:  # noqa: BLE001  (the site works without it)
        _LOG.exception("%s not started", name)
        return None
    return part


def stopped(name: str, stop: Callable[[], object] | None) -> None:
    """Stop such a part."""
    try:
        if stop:
            stop()
    except Exception:  # noqa: BLE001  (the others are still to be stopped)
        _LOG.exception("%s not stopped", name)


def flush_log() -> None:
    """Have all handlers of the log give away what they hold; whoever calls this need not wait for it."""
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    for handler in {handler: None for logger in loggers for handler in getattr(logger, "handlers", ())}:
        handler.flush()


async def _first_of(parts: list[Coroutine[Any, Any, int | None]]) -> int:
    """Do everything at once, until one part ends: by its exit status, or by what it raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result() or 0
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _end_of(working: asyncio.Task[int]) -> int:
    working.cancel()
    await asyncio.wait((working,), timeout=_END_SECONDS)
    return 0 if not working.done() or working.cancelled() else working.result()


def _import_workers() -> Any:
    from harbor_satellite.edge import site_worker  # noqa: PLC0415  (reads the environment that was set by now)

    adopt_handlers()
    gc.collect()
    gc.freeze()  # what was imported stays: a collection after each run need not look through it
    return site_worker


def _export(settings: SatelliteSettings) -> None:
    """Put into the environment what flows and Prefect read there."""
    poll = str(settings.poll_interval_seconds)
    os.environ["HARBOR_SATELLITE_DATA_DIR"] = str(settings.data_dir.absolute())
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
