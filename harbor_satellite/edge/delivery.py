"""The site's reports: left on disk when something happened, and delivered in order.

Runs by Prefect, runs without it and the reporter's thread all go this way, one after the other. What must not live
here: what a report says (``satellite/report.py``), how it waits on disk (``satellite/spool.py``), and when to deliver
(``reporter.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import time
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Final

from harbor_satellite.edge.credential import is_refused, open_ground_control
from harbor_satellite.edge.link import lent
from harbor_satellite.edge.site import site_facts
from harbor_satellite.errors import RemoteError, StorageError
from harbor_satellite.satellite.centre_contact import note_contact
from harbor_satellite.satellite.registration import clear_refusal
from harbor_satellite.satellite.renewal import is_expiring, may_be_refused
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.satellite.report import compose_report
from harbor_satellite.satellite.site_config import load_site_config
from harbor_satellite.satellite.spool import Spool
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.news import as_before

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from harbor_satellite.satellite.ground_control_client import GroundControlClient
    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration, ReportAnswer, StatusReport

_LOG = logging.getLogger(__name__)
_KNOWN: Final = "reported.json"
_SPOOL_LOCK: Final = ".spool.lock"
_LONGEST_SECONDS: Final = 40.0  # of one delivery: what still waits then, waits for the next
_LOCK_SECONDS: Final = 60.0  # for another delivery to end
_LOCK_PAUSE_SECONDS: Final = 0.1
_REFUSALS: Final = frozenset(range(400, 500))
_REFUSED_FOR_GOOD: Final = _REFUSALS - {401, 408, 429}
_NOT_UNDERSTOOD: Final = frozenset({400, 415, 422})


@dataclass(frozen=True, slots=True)
class Delivered:
    """What came of a delivery."""

    state_digest: str
    """Of the state that the site says is applied; empty: none."""
    image_count: int
    is_renewal_wanted: bool
    """Whether the site shall fetch its next credential now."""
    is_news: bool = True
    """Whether anything but times, disk and bytes was said."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The news that the centre took last."""

    digest: str = ""
    is_short_taken: bool = False


def leave_receipt(settings: SatelliteSettings, satellite: str = "") -> StatusReport:
    """Keep on disk what there is to report now, if it is news: for after each run, whether the centre is there or not.

    Args:
        settings: the site's own.
        satellite: who reports; empty: as registered.

    Raises:
        NotFoundError: the site is not registered.
        StorageError: it cannot be kept.
    """
    store = SatelliteStore(settings.data_dir)
    with _alone(store.folder / _SPOOL_LOCK):
        report = _compose(settings, store, satellite or store.registration().satellite)
        _keep_news(store, report)
    return report


def _keep_news(store: SatelliteStore, report: StatusReport) -> None:
    """Keep a report that was composed under the spool's lock: else an older one might be kept after a newer."""
    spool = Spool(store.folder)
    waiting = spool.waiting()
    # What waits is looked at first: it goes after it has been noted as taken.
    before = waiting[-1].digest if waiting else _known(store).digest
    if report.news_digest != before:
        spool.add(report)


def deliver(
    settings: SatelliteSettings,
    satellite: str = "",
    *,
    is_source_tried: bool = True,
    transport: httpx.BaseTransport | None = None,
) -> Delivered:
    """Bring the centre what waits, oldest first, and how the site is now.

    Args:
        settings: the site's own.
        satellite: who reports; empty: as registered.
        is_source_tried: see whether the source refuses the credential, if a run met what looks like it.
        transport: the way to Ground Control; None: the agent's, or an own connection in any other process.

    Raises:
        AuthenticationError: the credential is not good any more.
        RemoteError: the centre cannot be reached, or refuses; what waits is still there.
    """
    store = SatelliteStore(settings.data_dir)
    with _alone(store.folder / ".delivery.lock"):
        registration = store.registration()
        name = satellite or registration.satellite
        with _alone(store.folder / _SPOOL_LOCK):
            report = _compose(settings, store, name)
            try:
                _keep_news(store, report)
            except StorageError as error:  # a disk that is full or read-only is what the centre should hear of
                _LOG.warning("report not kept reason=%s", error)
        with open_ground_control(settings, transport or lent()) as client:
            way = _Way(client, store, registration)
            answer, told = None, ""
            try:
                answer, told = way.send_waiting()
            except StorageError as error:
                _LOG.warning("reports that wait not delivered reason=%s", error)
            if told and told != report.news_digest:  # by what a run has left meanwhile, which is newer
                report = _compose(settings, store, name)
            if answer is None or told != report.news_digest:
                answer = way.send(report)
    applied, now = store.applied(), utc_now()
    is_wanted = answer.is_renewal_due or is_expiring(registration, now, store.registered_at())
    if not is_wanted and is_source_tried and may_be_refused(applied):
        is_wanted = is_refused(settings, registration)
    return Delivered(report.latest_state_digest, report.image_count, is_wanted, bool(told))


@dataclass(frozen=True, slots=True)
class _Way:
    """One connection to the centre, for one delivery."""

    client: GroundControlClient
    store: SatelliteStore
    registration: Registration

    def send_waiting(self) -> tuple[ReportAnswer | None, str]:
        """Deliver what waits; return the last answer, and the digest of what it was given to; None: nothing waited."""
        spool, until = Spool(self.store.folder), time.monotonic() + _LONGEST_SECONDS
        answer, digest = None, ""
        while waiting := spool.waiting():
            if time.monotonic() > until:
                raise RemoteError("more reports wait than could be delivered at once", retryable=True)
            spooled = waiting[0]
            kept = spool.read(spooled)
            if kept is None:
                continue
            dropped = spool.dropped
            try:
                answer = self._send_whole(kept.model_copy(update={"dropped_receipts": dropped}))
            except RemoteError as error:
                if error.status not in _REFUSED_FOR_GOOD:
                    raise
                spool.set_aside(spooled, str(error))
                continue
            digest = spooled.digest
            if dropped:
                with contextlib.suppress(StorageError), _alone(self.store.folder / _SPOOL_LOCK):
                    spool.note_told(dropped)
            spool.remove(spooled)
        return answer, digest

    def send(self, report: StatusReport) -> ReportAnswer:
        """Deliver a report of how the site is now: a short one if the centre has the rest."""
        known = _known(self.store)
        if known.is_short_taken and known.digest == report.news_digest:
            answer = self._post(as_before(report), is_compressed=True)
            if answer.is_short_taken:
                return answer
            # It lacks what the report leans on, was replaced by one that knows no short ones, or is not the centre.
            _LOG.info("centre wants the whole report")
        return self._send_whole(report)

    def _send_whole(self, report: StatusReport) -> ReportAnswer:
        known = _known(self.store)
        try:
            answer = self._post(report, is_compressed=known.is_short_taken)
        except RemoteError as error:
            if not known.is_short_taken or error.status not in _NOT_UNDERSTOOD:
                raise
            answer = self._post(report, is_compressed=False)  # to a centre that is older than it was
        try:
            self.store.write_document(_KNOWN, {"digest": report.news_digest, "is_short_taken": answer.is_short_taken})
        except StorageError as error:  # it was taken: it is told once more at worst
            _LOG.warning("not noted what the centre took: %s", error)
        return answer

    def _post(self, report: StatusReport, *, is_compressed: bool) -> ReportAnswer:
        auth = self.registration.auth
        try:
            answer = self.client.report(report, auth.username, auth.password, is_compressed=is_compressed)
        except RemoteError as error:
            is_there = error.status is not None and error.status in _REFUSALS
            note_contact(self.store, "" if is_there else str(error), utc_now())
            raise
        note_contact(self.store, "", utc_now())
        clear_refusal(self.store)
        return answer


def report_interval(settings: SatelliteSettings) -> int:
    """Return how many seconds pass between two reports of a site, by its own settings and the centre's config."""
    return _effective(settings, SatelliteStore(settings.data_dir)).report_interval_seconds


def _compose(settings: SatelliteSettings, store: SatelliteStore, satellite: str) -> StatusReport:
    effective = _effective(settings, store)
    facts = replace(
        site_facts(effective, store),
        report_interval_seconds=effective.report_interval_seconds,
        own_schedule=settings.schedule if "schedule" in settings.model_fields_set else "",
        own_timezone=settings.timezone if "timezone" in settings.model_fields_set else "",
    )
    return compose_report(satellite, store.applied(), facts, utc_now())


def _effective(settings: SatelliteSettings, store: SatelliteStore) -> SatelliteSettings:
    # Not as a run has them: a registry that is set up wrongly is no reason to fall silent.
    return settings.with_config(load_site_config(store).config)


def _known(store: SatelliteStore) -> _Known:
    try:
        document = store.read_document(_KNOWN) or {}
    except StorageError:  # then the centre is told everything once more
        document = {}
    return _Known(str(document.get("digest", "")), document.get("is_short_taken") is True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that processes of this site share.

    Raises:
        RemoteError: another delivery takes longer than it may.
    """
    until = time.monotonic() + _LOCK_SECONDS
    with _lock_file(path) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise RemoteError("another delivery of this site is under way", retryable=True) from error
            time.sleep(_LOCK_PAUSE_SECONDS)
        yield


def _lock_file(path: Path) -> IO[bytes]:
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    try:
        return path.open("rb")  # which a disk that has become read-only allows, and a lock needs no more
    except OSError as error:
        raise StorageError(f"cannot open {path}: {error.strerror}") from error
