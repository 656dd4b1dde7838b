"""What this process counts, and the fleet in numbers, as Prometheus reads them.

Labels never hold names of satellites or paths as they were asked for: their number is bounded. What must not live
here: who may read this (``routes_health``).
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

import harbor_satellite
from harbor_satellite.ground_control.fleet.fleet_view import count_states
from harbor_satellite.ground_control.models import OutboxEvent, Rollout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric
    from sqlalchemy.orm import Session
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from harbor_satellite.ground_control.api.context import Context

_KEPT_SECONDS: Final = 15.0
"""How old the counts of the fleet may be: several scrapers cost no more than one."""
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds
_CALLS_OF_SITES: Final = {
    "/satellites/sync": "report",
    "/satellites/ztr": "claim",
    "/satellites/ztr/{token}": "claim",
    "/satellites/credential": "renewal",
}
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OPEN_ROLLOUTS: Final = ("running", "soaking", "paused")
_FAILED: Final = 500
_REFUSED: Final = 400


class Metrics:
    """All metrics of one app, in a registry of their own.

    Args:
        context: the app's.
    """

    def __init__(self, context: Context) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("harbor_satellite_http_requests", "Requests answered", labels, registry=self.registry)
        self._seconds = Histogram(
            "harbor_satellite_http_request_seconds",
            "From a request's head to the end of its answer",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._calls = Counter(
            "harbor_satellite_site_calls",
            "What sites called: reports, claims, renewals",
            ("call", "outcome"),
            registry=self.registry,
        )
        self.registry.register(_FleetCollector(context))
        self.registry.register(_GatewayCollector(context))

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            method: of the request; one that HTTP does not know counts as ``other``.
            route: the template that matched; ``unmatched`` if none did.
            status: of the answer.
            seconds: that it took.
        """
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if call := _CALLS_OF_SITES.get(route):
            outcome = "failed" if status >= _FAILED else "refused" if status >= _REFUSED else "done"
            self._calls.labels(call, outcome).inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class RequestMeter:
    """An ASGI layer around the whole app: counts requests by the template of their route.

    Args:
        app: what to wrap.
        metrics: where they are counted.
        clock: seconds of a clock that nobody sets.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app, self._metrics, self._clock = app, metrics, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = self._clock(), _FAILED

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            self._metrics.note(scope["method"], _route(scope), status, self._clock() - started)


class _FleetCollector(Collector):
    """Counts from the database, at most every quarter of a minute."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._kept: list[Metric] = []
        self._kept_until = float("-inf")

    def describe(self) -> list[Metric]:
        """Name nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the counts."""
        with self._lock:
            if self._context.monotonic() >= self._kept_until:
                self._kept = self._read()
                self._kept_until = self._context.monotonic() + _KEPT_SECONDS
            kept = self._kept
        yield from kept

    def _read(self) -> list[Metric]:
        build = GaugeMetricFamily("harbor_satellite_build_info", "This release", labels=("version",))
        build.add_metric([harbor_satellite.__version__], 1)
        reachable = GaugeMetricFamily("harbor_satellite_database_up", "Whether the database answers")
        found: list[Metric] = [build, reachable]
        try:
            with self._context.reading() as session:
                found += [*self._fleet(session), *self._outbox(session), _rollouts(session)]
        except SQLAlchemyError:
            # What this process counts is worth most when the database is away.
            reachable.add_metric([], 0)
            return found[:2]
        reachable.add_metric([], 1)
        return found

    def _fleet(self, session: Session) -> Iterator[Metric]:
        counts = count_states(session, self._context.clock())
        states = GaugeMetricFamily("harbor_satellite_satellites", "Satellites by state", labels=("state",))
        for state, count in counts.states.items():
            states.add_metric([state], count)
        yield states
        lives = GaugeMetricFamily(
            "harbor_satellite_satellites_lifecycle", "Satellites by lifecycle", labels=("lifecycle",)
        )
        for lifecycle, count in counts.lifecycles.items():
            lives.add_metric([lifecycle], count)
        yield lives
        yield GaugeMetricFamily(
            "harbor_satellite_oldest_lag_seconds",
            "Since the oldest publication that a satellite which was seen has not applied",
            counts.oldest_lag_seconds,
        )

    def _outbox(self, session: Session) -> Iterator[Metric]:
        waiting = select(func.count(), func.min(OutboxEvent.created_at)).where(OutboxEvent.delivered_at.is_(None))
        depth, oldest = session.execute(waiting).one()
        age = 0.0 if oldest is None else max(0.0, (self._context.clock() - oldest).total_seconds())
        yield GaugeMetricFamily("harbor_satellite_outbox_events", "Events not yet delivered to Prefect", depth)
        yield GaugeMetricFamily("harbor_satellite_outbox_age_seconds", "Age of the oldest of them", age)


class _GatewayCollector(Collector):
    """What the gateway to Prefect has counted."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def describe(self) -> list[Metric]:
        """Name nothing beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the counts."""
        events = CounterMetricFamily(
            "harbor_satellite_gateway", "What the gateway to Prefect did, since this process started", labels=("what",)
        )
        for name, count in asdict(self._context.counters).items():
            events.add_metric([name], count)
        yield events


def _rollouts(session: Session) -> Metric:
    query = select(Rollout.state, func.count()).where(Rollout.state.in_(_OPEN_ROLLOUTS)).group_by(Rollout.state)
    counts = dict.fromkeys(_OPEN_ROLLOUTS, 0)
    counts.update((state, count) for state, count in session.execute(query))
    metric = GaugeMetricFamily("harbor_satellite_rollouts", "Rollouts that are under way", labels=("state",))
    for state, count in counts.items():
        metric.add_metric([state], count)
    return metric


def _route(scope: Scope) -> str:
    # Never the path itself: one of them carries a one-time token, and anybody can make up others.
    path: str = getattr(scope.get("route"), "path", "")
    return path or "unmatched"
