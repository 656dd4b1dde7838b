"""The thread that posts outbox events to Prefect's HTTP API: at least once, in order, never in a request's way.

Events of satellites go at a pace of their own (``pacing.py``), behind all others.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import httpx
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.database import reading
from harbor_satellite.ground_control.pacing import AT_ONCE, TURN, Pace, is_moot, next_look_after
from harbor_satellite.ground_control.satellites import provisioning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.outbox import LeasedEvent

logger = logging.getLogger(__name__)

_BATCH: Final = 50  # events in one request
_POLL_SECONDS: Final = 1.0  # events written by another process, or due again, wait at most this long
_SHORTEST_PAUSE_SECONDS: Final = 0.1  # an event that another replica holds may be due, too
_TIMEOUT_SECONDS: Final = 10.0
_NO_DEPLOYMENT: Final = timedelta(minutes=30)  # three runs of reconcile-fleet have not made it


class OutboxDispatcher:
    """Posts what the outbox holds, until stopped; wakes up as soon as a transaction has added to it.

    Args:
        factory: where the outbox is; its commits are listened to.
        prefect_api_url: Prefect's API as reached from here, such as ``http://127.0.0.1:4200/api``.
        auth: ``user:password`` of a Prefect server that asks for it.
        note_run: told the satellite of which Prefect is about to make a run; called in this thread.
        monotonic: seconds of a clock that never goes back.
        transport: for tests.
    """

    def __init__(
        self,
        factory: SessionFactory,
        prefect_api_url: str,
        auth: SecretStr | None = None,
        *,
        note_run: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._factory = factory
        self._url = prefect_api_url.rstrip("/")
        self._note_run = note_run
        self._monotonic = monotonic
        self._pace = Pace(monotonic())
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
        """Post one batch of due events, and as many of satellites as their pace allows.

        Returns:
            How many were taken out; 0 means there is nothing to do now.
        """
        taken = self._post_others(now)
        taken += 0 if self._is_down else self._post_of_satellites(now)
        # An event that Prefect refuses waits for its own turn; only a Prefect that cannot be reached holds up all.
        if taken:
            self._failures = self._failures + 1 if self._is_down else 0
        return taken

    def _post_others(self, now: datetime) -> int:
        self._is_down = False
        with self._factory.begin() as session:
            events = outbox.lease_events(session, _BATCH, now)
        if events:
            self._settle(events, self._deliver([(leased, None) for leased in events]), now)
        return len(events)

    def _post_of_satellites(self, now: datetime) -> int:
        allowed = self._pace.allows(self._monotonic())
        if not allowed:
            return 0
        with self._factory.begin() as session:
            # Prefect's automations are one for all replicas, and so is the pace.
            allowed = min(allowed, AT_ONCE - outbox.count_of_satellites(session, now - TURN))
            events = outbox.lease_satellite_events(session, allowed, now) if allowed > 0 else ()
        if not events:
            return 0
        moot = self._moot(events, now)
        wanted = [leased for leased in events if leased not in moot]
        found = [(leased, self._deployment_of(leased)) for leased in wanted]
        absent = [leased for leased, deployment in found if deployment == ""]
        ready = [(leased, deployment) for leased, deployment in found if deployment]
        delivered = self._deliver(ready) if ready else ()
        self._pace.take(len(wanted))
        gone = [*moot, *(leased for leased in absent if now - leased.occurred > _NO_DEPLOYMENT)]
        with self._factory.begin() as session:
            outbox.drop(session, gone)
            for leased in absent:
                if leased not in gone:
                    outbox.keep(session, leased, now + next_look_after(now - leased.occurred))
        self._settle([leased for leased in wanted if leased not in absent], delivered, now)
        for leased in gone:
            logger.info("event dropped satellite=%s attempt=%d", leased.payload["satellite"], leased.attempts)
        for leased in delivered:
            self._note_run(leased.payload["satellite"])
        return len(events)

    def _settle(self, events: Sequence[LeasedEvent], delivered: Sequence[LeasedEvent], now: datetime) -> None:
        left = [leased for leased in events if leased not in delivered]
        with self._factory.begin() as session:
            outbox.mark_delivered(session, [leased.id for leased in delivered], now)
            outbox.mark_failed(session, left, now)

    def _moot(self, events: Sequence[LeasedEvent], now: datetime) -> list[LeasedEvent]:
        """Return the events of which the satellite's schedule has brought a run meanwhile, or that is no more."""
        with reading(self._factory) as session:
            names = [leased.payload["satellite"] for leased in events]
            satellites = {str(row.name): row for row in provisioning.wanted_deployments(session, names)}
        return [leased for leased in events if is_moot(leased, satellites.get(leased.payload["satellite"]), now)]

    def _run(self) -> None:
        errors = 0
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                pause = self._pause_seconds()
                if pause <= 0:
                    pause = 0.0 if self.post_due(datetime.now(UTC)) else _SHORTEST_PAUSE_SECONDS
            except SQLAlchemyError as error:
                errors += 1
                logger.warning("outbox unavailable error=%s", type(error).__name__)
                self._stopping.wait(outbox.backoff_seconds(errors))
                continue
            errors = 0
            if self._failures:
                self._stopping.wait(outbox.backoff_seconds(self._failures))
            else:
                self._wake.wait(min(_POLL_SECONDS, pause))

    def _pause_seconds(self) -> float:
        """Return how long there is nothing to post, as far as is known now."""
        with reading(self._factory) as session:
            others_at, satellites_at = outbox.next_due(session)
        now, far = datetime.now(UTC), _POLL_SECONDS
        others = (others_at - now).total_seconds() if others_at else far
        satellites = (satellites_at - now).total_seconds() if satellites_at else far
        return min(others, max(satellites, self._pace.wait_seconds(self._monotonic())))

    def _deployment_of(self, leased: LeasedEvent) -> str | None:
        """Return the id of the deployment that replicates a satellite; empty: it has none; None: nobody knows now."""
        path = f"/deployments/name/replicate-state/{leased.payload['satellite']}"
        answer = None if self._is_down else self._call("GET", path)
        if answer is None:
            return None
        if answer.status_code == httpx.codes.NOT_FOUND:
            return ""
        try:
            return str(uuid.UUID(answer.json()["id"])) if answer.status_code == httpx.codes.OK else None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def _deliver(self, events: Sequence[tuple[LeasedEvent, str | None]]) -> Sequence[LeasedEvent]:
        answer = self._post(events)
        if answer is not None and answer.is_success:
            logger.debug("events posted count=%d", len(events))
            return [leased for leased, _ in events]
        status = answer.status_code if answer is not None else None
        logger.warning("events not posted count=%d status=%s attempt=%d", len(events), status, events[0][0].attempts)
        if status == httpx.codes.UNPROCESSABLE_ENTITY and len(events) > 1:
            # One event that Prefect refuses must not hold up the others.
            return [one[0] for one in events if (alone := self._post([one])) is not None and alone.is_success]
        return ()

    def _post(self, events: Sequence[tuple[LeasedEvent, str | None]]) -> httpx.Response | None:
        return self._call("POST", "/events", [_prefect_event(leased, deployment) for leased, deployment in events])

    def _call(self, method: str, path: str, body: object = None) -> httpx.Response | None:
        """Call Prefect, and note whether it is down; None if it cannot be reached."""
        try:
            answer = self._client.request(method, self._url + path, json=body)
        except httpx.HTTPError as error:
            logger.debug("prefect api unreachable error=%r", error)
            self._is_down = True
            return None
        self._is_down = answer.is_server_error
        return answer

    def _after_commit(self, session: Session) -> None:
        if session.info.pop(outbox.PENDING, False):
            self._wake.set()


def _prefect_event(leased: LeasedEvent, deployment: str | None) -> dict[str, Any]:
    """Write an event as Prefect reads it; the automation runs the deployment that is related to it."""
    related = {"prefect.resource.id": f"prefect.deployment.{deployment}", "prefect.resource.role": "deployment"}
    return {
        "id": leased.event_id,
        "occurred": leased.occurred.isoformat(),
        "event": leased.event,
        "resource": {"prefect.resource.id": leased.resource_id},
        "related": [related] if deployment else [],
        "payload": leased.payload,
    }
