"""What every handler of the API shares: options, sessions, the source, the clock, the throttles."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import RemoteError
from harbor_satellite.ground_control.api.report_queue import ReportQueue
from harbor_satellite.ground_control.api.throttle import FailureThrottle, KnownCallers, RateLimits
from harbor_satellite.ground_control.database import reading
from harbor_satellite.ground_control.gateway.counters import GatewayCounters
from harbor_satellite.ground_control.people.audit_budget import RefusalBudget
from harbor_satellite.ground_control.people.users import LockoutPolicy
from harbor_satellite.ground_control.satellites.identities import Identities
from harbor_satellite.ground_control.satellites.registration import SiteAddresses

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.satellites.sources import Source

GATEWAY_PATH: Final = "/prefect/api"
"""Below which the gateway to Prefect is."""
BODY_MAX_BYTES: Final = 10 * 1024 * 1024
_QUEUED_SOURCE_CALLS: Final = 24  # fewer than threads: while the source hangs, reports must still get through
_CONCURRENT_SOURCE_CALLS: Final = 8  # fewer than database connections: a slow source must not take them all


@dataclass(frozen=True, slots=True)
class AppOptions:
    """What the API needs to know; plain values, read from the environment by others."""

    source_url: str
    """Where sites pull from, as they reach it: ``https://harbor.example.com``."""
    public_url: str = ""
    """This service as sites and Harbor reach it: ``https://ground-control.example.com``. The sites' Prefect API is
    below it, and rules and webhooks made at Harbor name it; empty: there are neither."""
    prefect_api_url: str = ""
    """A Prefect API that sites reach past the gateway; empty: the gateway at ``public_url``."""
    prefect_api_internal_url: str = ""
    """The Prefect API as reached from here, for events; empty: events stay in the outbox."""
    prefect_api_auth: SecretStr | None = None
    """``user:password`` of that Prefect server, if it asks for it."""
    metrics_token: SecretStr | None = None
    """With which a scraper may read ``/metrics``, besides people; None: people only."""
    admin_password: SecretStr | None = None
    """For the user ``admin``, who is made on the first start; not looked at again after that."""
    token_ttl: timedelta = timedelta(hours=24)
    """How long a one-time token may be claimed; the original's."""
    session_ttl: timedelta = timedelta(hours=24)
    """How long a login lasts; the original's."""
    max_failed_logins: int = 5
    """Failures until a user is locked; the original's."""
    lockout: timedelta = timedelta(minutes=5)
    """How long a user stays locked; the original's."""
    renewal_grace: timedelta = timedelta(days=90)
    """How long after its end a site's credential may still ask for the next one."""
    body_max_bytes: int = BODY_MAX_BYTES
    """Larger requests are refused with 413."""
    webhook_debounce_seconds: float = 5.0
    """How long after a webhook or a push to a rule's endpoint a group is published: a burst makes one event."""


def utc_now() -> datetime:
    """Return this moment."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Context:
    """Shared by all handlers of one app; everything in it is safe to share between threads."""

    options: AppOptions
    factory: SessionFactory
    source: Source
    clock: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    password_failures: FailureThrottle = field(default_factory=lambda: FailureThrottle(limit=20))
    address_failures: FailureThrottle = field(default_factory=lambda: FailureThrottle(limit=200))
    known_callers: KnownCallers = field(default_factory=KnownCallers)
    limits: RateLimits = field(default_factory=RateLimits)
    refusals: RefusalBudget = field(default_factory=RefusalBudget)
    secret_failures: FailureThrottle = field(default_factory=lambda: FailureThrottle(limit=60))
    identities: Identities = field(init=False)
    idle_reports: ReportQueue = field(init=False)
    counters: GatewayCounters = field(default_factory=GatewayCounters)
    _source_queue: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(_QUEUED_SOURCE_CALLS))
    _source_slots: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(_CONCURRENT_SOURCE_CALLS))

    def __post_init__(self) -> None:
        object.__setattr__(self, "identities", Identities(self.factory, self.monotonic, clock=self.clock))
        object.__setattr__(self, "idle_reports", ReportQueue(self.factory, self.monotonic))

    @property
    def lockout_policy(self) -> LockoutPolicy:
        """When guessing a person's password ends for a while."""
        return LockoutPolicy(self.options.max_failed_logins, self.options.lockout)

    @property
    def addresses(self) -> SiteAddresses:
        """What a site is told about the centre."""
        return SiteAddresses(self.options.source_url, self._site_prefect_url)

    @property
    def _site_prefect_url(self) -> str:
        options = self.options
        if options.prefect_api_url or not (options.public_url and options.prefect_api_internal_url):
            return options.prefect_api_url
        return f"{options.public_url.rstrip('/')}{GATEWAY_PATH}"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that only reads."""
        with reading(self.factory) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session whose transaction commits at the end, or rolls back on an error."""
        with self.factory.begin() as session:
            yield session

    @contextmanager
    def writing_with_source(self) -> Iterator[Session]:
        """Do the same for a transaction that asks the source in its middle: only a few at a time."""
        if not self._source_queue.acquire(blocking=False):
            raise RemoteError("too many requests wait for the source", retryable=True, retry_after_seconds=5)
        try:
            with self._source_slots, self.factory.begin() as session:
                yield session
        finally:
            self._source_queue.release()

    def note_secret_failure(self, key: Hashable) -> int | None:
        """Count a wrong token or satellite secret; return when to come again, if that is not now."""
        return self.secret_failures.note_failure(key, self.monotonic())
