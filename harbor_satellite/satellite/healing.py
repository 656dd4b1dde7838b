"""Healing a site: what audits and replications call. How content is healed is ``healer.py``."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import ConflictError
from harbor_satellite.satellite.findings import save_last_audit
from harbor_satellite.satellite.good_bytes import GoodBytes
from harbor_satellite.satellite.healer import Healer
from harbor_satellite.satellite.healing_journal import load_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harbor_satellite.satellite.engine import Engine
    from harbor_satellite.satellite.findings import AuditReport, Finding
    from harbor_satellite.satellite.store import SatelliteStore

_LOG = logging.getLogger(__name__)
_LOCK_POLL_SECONDS: Final = 2.0


def needs_healing(store: SatelliteStore, report: AuditReport) -> bool:
    """Tell whether there is anything to heal: found now, or left half-way by a healing that was killed."""
    return bool(report.damaged) or load_journal(store) is not None


def heal_site(engine: Engine, report: AuditReport) -> AuditReport:
    """Heal what an audit found, and keep the audit with what became of each finding.

    Args:
        engine: the run's hold on the site; whoever opened it holds the site's lock.
        report: what an audit of this site found.

    Raises:
        StorageError: a record of the satellite is damaged, or cannot be written.
    """
    started = time.monotonic()
    healer = make_healer(engine)
    findings = healer.heal_all(report.findings)
    healed = replace(
        report,
        findings=findings,
        bytes_from_source=report.bytes_from_source + healer.good.bytes_from_source,
        seconds=report.seconds + time.monotonic() - started,
    )
    save_last_audit(engine.store, healed)
    return healed


def finish_interrupted(engine: Engine) -> Finding | None:
    """Put back what a healing that was killed had taken away; None if there is nothing to put back.

    For the begin of a replication, which would fetch again what is only waiting to be put back, and knows nothing of
    the names that others made at the site.

    Raises:
        HarborSatelliteError: why it cannot be put back now; it stays on record.
    """
    return make_healer(engine).finish() if load_journal(engine.store) else None


def leave_findings(store: SatelliteStore, report: AuditReport, reason: str) -> AuditReport:
    """Keep an audit without healing; the next one looks at its damage first."""
    left = replace(report, findings=tuple(finding.left(reason) for finding in report.findings))
    save_last_audit(store, left)
    return left


def make_healer(engine: Engine) -> Healer:
    """Make the healer of a site from the run's hold on it."""
    good = GoodBytes(
        engine.connections,
        engine.store.folder,
        engine.store.applied().sources,
        engine.options.disk_reserve_bytes,
        engine.check_link,
    )
    return Healer(engine.connections.target, engine.store, good, engine.options.platforms)


@contextlib.contextmanager
def lock_patiently(
    store: SatelliteStore, patience_seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the site's lock; a replication that holds it now is waited for.

    Raises:
        ConflictError: it is held for longer than the patience lasts.
    """
    until = time.monotonic() + patience_seconds
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(store.lock())
                break
            except ConflictError:
                if time.monotonic() >= until:
                    raise
            sleep(_LOCK_POLL_SECONDS)
        yield
