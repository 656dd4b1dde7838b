"""The thread that posts outbox events to Prefect's HTTP API: at least once, in order, never in a request's way."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import httpx
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.database import reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.outbox import LeasedEvent

logger = logging.getLogger(__name__)

_BATCH: Final = 50  # events in one request
_POLL_SECONDS: Final = 5.0  # events written by another process, or due again, wait at most this long
_SHORTEST_PAUSE_SECONDS: Final = 0.1  # an event that another replica holds may be due, too
_TIMEOUT_SECONDS: Final = 10.0


class OutboxDispatcher:
    """Posts what the outbox holds, until stopped; wakes up as soon as a transaction has added to it.

    Args:
        factory: where the outbox is; its commits are listened to.
        prefect_api_url: Prefect's API as reached from here, such as ``http://127.0.0.1:4200/api``.
        auth: ``user:password`` of a Prefect server that asks for it.
        transport: for tests.
    """

    def __init__(
        self,
        factory: SessionFactory,
        prefect_api_url: str,
        auth: SecretStr | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._factory = factory
        self._url = f"{prefect_api_url.rstrip('/')}/events"
        user, _, password = auth.get_secret_value().partition(":") if auth else ("", "", "")
        self._client = httpx.Client(
            auth=httpx.BasicAuth(user, password) if auth else None,
            timeout=_TIMEOUT_SECONDS,
            transport=transport,
        )
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failures = 0
        self._is_down = False
        self._thread = threading.Thread(target=self._run, name="outbox-dispatcher", daemon=True)

    def start(self) -> None:
        """Begin to post, in a thread of its own."""
        event.listen(self._factory, "after_commit", self._after_commit)
        self._thread.start()

    def stop(self) -> None:
        """End after the request that is under way; what is left stays in the outbox."""
        event.remove(self._factory, "after_commit", self._after_commit)
        self._stopping.set()
        self._wake.set()
        self._thread.join(_TIMEOUT_SECONDS * 2)
        self._client.close()

    def post_due(self, now: datetime) -> int:
        """Post one batch of due events.

        Returns:
            How many were taken out; 0 means there is nothing to do now.
        """
        with self._factory.begin() as session:
            events = outbox.lease_events(session, _BATCH, now)
        if not events:
            return 0
        delivered = self._deliver(events)
        # An event that Prefect refuses waits for its own turn; only a Prefect that cannot be reached holds up all.
        self._failures = self._failures + 1 if self._is_down else 0
        left = [leased for leased in events if leased not in delivered]
        with self._factory.begin() as session:
            outbox.mark_delivered(session, [leased.id for leased in delivered], now)
            outbox.mark_failed(session, left, now)
        return len(events)

    def _run(self) -> None:
        errors = 0
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                taken = self.post_due(datetime.now(UTC))
                pause = self._pause_seconds()
            except SQLAlchemyError as error:
                errors += 1
                logger.warning("outbox unavailable error=%s", type(error).__name__)
                self._stopping.wait(outbox.backoff_seconds(errors))
                continue
            errors = 0
            if self._failures:
                self._stopping.wait(outbox.backoff_seconds(self._failures))
            elif taken < _BATCH:
                self._wake.wait(pause)

    def _pause_seconds(self) -> float:
        """Return how long there is nothing to post, as far as is known now."""
        with reading(self._factory) as session:
            due_at = outbox.next_due(session)
        seconds = _POLL_SECONDS if due_at is None else (due_at - datetime.now(UTC)).total_seconds()
        return min(_POLL_SECONDS, max(_SHORTEST_PAUSE_SECONDS, seconds))

    def _deliver(self, events: Sequence[LeasedEvent]) -> Sequence[LeasedEvent]:
        status = self._post(events)
        self._is_down = status is None or httpx.codes.is_server_error(status)
        if status is not None and httpx.codes.is_success(status):
            logger.debug("events posted count=%d", len(events))
            return events
        logger.warning("events not posted count=%d status=%s attempt=%d", len(events), status, events[0].attempts)
        if status == httpx.codes.UNPROCESSABLE_ENTITY and len(events) > 1:
            # One event that Prefect refuses must not hold up the others.
            return [leased for leased in events if httpx.codes.is_success(self._post([leased]) or 0)]
        return ()

    def _post(self, events: Sequence[LeasedEvent]) -> int | None:
        try:
            return self._client.post(self._url, json=[_prefect_event(leased) for leased in events]).status_code
        except httpx.HTTPError as error:
            logger.debug("prefect api unreachable error=%r", error)
            return None

    def _after_commit(self, session: Session) -> None:
        if session.info.pop(outbox.PENDING, False):
            self._wake.set()


def _prefect_event(leased: LeasedEvent) -> dict[str, Any]:
    return {
        "id": leased.event_id,
        "occurred": leased.occurred.isoformat(),
        "event": leased.event,
        "resource": {"prefect.resource.id": leased.resource_id},
        "related": [],
        "payload": leased.payload,
    }
