"""Watches over a site's agent: what changes while it runs is taken over, and what is stuck is started again."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.own_registry import load_current
from harbor_satellite.edge.own_site import HOLD
from harbor_satellite.edge.registration_attempt import new_token_given
from harbor_satellite.edge.registry_service import REGISTRY, refresh_plan
from harbor_satellite.edge.registry_switch import switch_if_needed
from harbor_satellite.edge.runtimes import follow
from harbor_satellite.edge.services import RESTART_NOW
from harbor_satellite.edge.site import effective_settings
from harbor_satellite.edge.threads import in_thread
from harbor_satellite.errors import ConflictError, HarborSatelliteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.edge.own_settings import OwnSettings
    from harbor_satellite.edge.proxy import RunningProxy
    from harbor_satellite.edge.reporter import Reporter
    from harbor_satellite.settings import SatelliteSettings

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 5.0
_TOKEN_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 60.0
"""After what follows a change could not be done, such as while a run holds the site."""
_LATER_SECONDS: Final = 600.0
"""What others change at the site, such as a runtime's configuration, is looked at so often."""
_STUCK_SECONDS: Final = 24 * 3600.0
"""A run that reads nothing from the source for so long is stuck: every request has a far shorter bound of its own."""
_AT_START: Final = ("poll_interval_seconds", "ca", "ground_control_url", "status_listen", "is_encrypted", "data_dir")
"""Settings that are read only when the agent starts."""


class Watch:
    """Looks every few seconds.

    Args:
        settings: the site's, read anew by it when a file changes.
        proxy: whose thread must live; None: there is none.
        reporter: told when settings change; None: nobody is.
        switch: moves the site to the registry that its settings want, and tells whether it did; may take hours.
    """

    def __init__(
        self,
        settings: OwnSettings,
        proxy: RunningProxy | None,
        reporter: Reporter | None,
        switch: Callable[[SatelliteSettings], bool] = switch_if_needed,
    ) -> None:
        self._settings = settings
        self._proxy = proxy
        self._reporter = reporter
        self._switch = switch
        self._switching: asyncio.Task[None] | None = None
        self._at_start = _chosen(settings.effective)
        self._ended = -1  # what follows a run follows the start as well
        self._follow_at = float("-inf")
        self._token_at = time.monotonic()
        self._ledger: tuple[int | None, float] = None, time.monotonic()
        self.is_worker_busy: Callable[[], bool] = lambda: False
        """Whether a flow run is under way, in any phase; set by the worker."""

    async def keep(self) -> int:
        """Watch until the agent must be started again; return the exit status that asks for it."""
        while True:
            reason = await self._look()
            if reason:
                _LOG.warning("starting again reason=%s", reason)
                return RESTART_NOW
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> str:
        now = time.monotonic()
        if self._proxy and not any(thread.name == "prefect-proxy" for thread in threading.enumerate()):
            return "the proxy has ended"
        if self.is_stuck(now):
            return "a run is stuck"
        is_changed = self._settings.look()
        if is_changed and self._reporter:
            self._reporter.nudge()  # the centre keeps the schedule of this site
        if is_changed or HOLD.ended != self._ended:
            self._follow_at, self._ended = now, HOLD.ended
        if now >= self._follow_at:
            is_done = await in_thread(lambda: follow_settings(self._settings.own))
            self._follow_at = now + (_LATER_SECONDS if is_done else _AGAIN_SECONDS)
            # Beside this loop, which goes on with all else meanwhile; one that was cut off goes on where it was.
            if self._switching is None or self._switching.done():
                self._switching = asyncio.create_task(self._follow_registry())
        if HOLD.since is not None or self.is_worker_busy():
            return ""
        if _chosen(self._settings.effective) != self._at_start:
            return "settings have changed"
        if now >= self._token_at + _TOKEN_SECONDS:
            self._token_at = now
            return "a new one-time token was given" if await in_thread(self._has_token) else ""
        return ""

    async def _follow_registry(self) -> None:
        """Let the registry be the one that the settings want; then the runtimes are to hear of it."""
        settings, moved = self._settings.own, list[bool]()
        is_done = await in_thread(
            lambda: _tried("local registry", lambda given: moved.append(self._switch(given)), settings)
        )
        wait = 0.0 if any(moved) else _LATER_SECONDS if is_done else _AGAIN_SECONDS
        self._follow_at = min(self._follow_at, time.monotonic() + wait)

    def is_stuck(self, now: float) -> bool:
        """Tell whether a run holds the site for very long and nothing comes from the source."""
        since = HOLD.since
        if since is None or now - since < _STUCK_SECONDS:
            return False
        try:
            mark: int | None = (self._settings.own.data_dir / "ledger.json").stat().st_mtime_ns
        except OSError:
            mark = None
        if mark != self._ledger[0]:
            self._ledger = mark, now
        return now - max(since, self._ledger[1]) >= _STUCK_SECONDS

    def _has_token(self) -> bool:
        try:
            return new_token_given(self._settings.own)
        except (HarborSatelliteError, OSError) as error:
            _LOG.debug("cannot look for a new token: %s", error)
            return False


def follow_settings(settings: SatelliteSettings) -> bool:
    """Let the plan of services and the runtimes follow the settings; tell whether all that there was to do is done.

    Args:
        settings: the site's own, without the centre's config.
    """
    results = [_tried(name, step, settings) for name, step in _FOLLOWERS.items()]
    return all(results)


def _tried(name: str, step: Callable[[SatelliteSettings], object], settings: SatelliteSettings) -> bool:
    try:
        return step(settings) is not False
    except ConflictError as error:
        _LOG.info("%s: not now: %s", name, error)
    except Exception as error:  # noqa: BLE001  (the agent goes on as it is)
        is_known = isinstance(error, HarborSatelliteError)
        _LOG.warning("%s: not done reason=%s", name, error, exc_info=not is_known)
    return False


def _follow_plan(settings: SatelliteSettings) -> bool:
    plan = refresh_plan(settings)
    current = load_current(settings.data_dir)
    # A registry whose disk is away is to be back soon after the disk is.
    return current is None or not current.place.is_managed or any(one.name == REGISTRY for one in plan.services)


def _chosen(settings: SatelliteSettings) -> tuple[object, ...]:
    return tuple(getattr(settings, name) for name in _AT_START)


_FOLLOWERS: Final[dict[str, Callable[[SatelliteSettings], object]]] = {
    "plan of services": _follow_plan,
    "runtimes": lambda settings: follow(effective_settings(settings)),
}
