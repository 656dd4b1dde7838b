"""What a status report says, as values: checked, bounded, and what of it is news. Pure.

What must not live here: rows and sessions (``reports.py``).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.digest import is_digest
from harbor_satellite.state.names import check_name
from harbor_satellite.state.news import news_digest

if TYPE_CHECKING:
    from harbor_satellite.state.wire import StatusReport

_COUNT_LIMIT: Final = 2**63 - 1  # what both databases hold
_GENERATION_LIMIT: Final = 2**31 - 1
_EARLIEST_YEAR: Final = 2000  # a site without a clock, or Go's zero time
_REASON_LONGEST: Final = 1000  # characters
LATEST_AHEAD: Final = timedelta(minutes=5)
"""How far a site's clock may be ahead of ours and still be believed."""
OLDEST_KEPT: Final = timedelta(days=7)
"""A report that seems to be older than this was not kept at the site: its clock was set back."""


def check_report(report: StatusReport) -> None:
    """Do nothing if everything in a report can be stored.

    Raises:
        InvalidInputError: a digest, a group, a count or a number that cannot be; the message names it.
    """
    if report.latest_state_digest and not is_digest(report.latest_state_digest):
        raise InvalidInputError(f"latest_state_digest is not a digest: {report.latest_state_digest[:100]!r}")
    counts = (
        report.bytes_from_source,
        report.bytes_today,
        report.bytes_this_month,
        report.image_count,
        report.dropped_receipts,
    )
    figures = (report.last_sync_duration_ms, report.storage_free_bytes or 0, report.link_bytes_per_second or 0)
    if max(*counts, *figures) > _COUNT_LIMIT:
        raise InvalidInputError("a count of the report is out of range")
    if report.is_as_before and not report.news_digest:
        raise InvalidInputError("a report that is as before does not say as which")
    if not math.isfinite(report.cpu_percent):
        raise InvalidInputError("cpu_percent is not a number")
    for group in report.groups:
        check_name("group", group.group)
        if group.generation > _GENERATION_LIMIT or (group.digest and not is_digest(group.digest)):
            raise InvalidInputError(f"generation or digest of group {group.group!r} is out of range")


def fingerprint_of(report: StatusReport, credential_id: int) -> str:
    """Return one word for all that is news in a report: an equal one says that nothing happened.

    The site's own word for it is taken: it is about nobody else, and a report "as before" has nothing besides. The
    credential counts, because the first report with a new one is news too.

    Args:
        report: as it came.
        credential_id: the row of the credential that it came with.
    """
    return sha256(f"{credential_id} {report.news_digest or news_digest(report)}".encode()).hexdigest()


def figures_of(report: StatusReport) -> dict[str, Any]:
    """Return the columns of a satellite that follow every report, news or not."""
    return {
        "activity": storable(report.activity),
        "bytes_today": report.bytes_today,
        "bytes_this_month": report.bytes_this_month,
        "storage_free_bytes": report.storage_free_bytes,
        "link_bytes_per_second": report.link_bytes_per_second,
    }


def news_of(report: StatusReport) -> dict[str, Any]:
    """Return the columns of a satellite that follow only what is news; when it is behind is not among them."""
    first = report.failures[0] if report.failures else None
    return {
        "applied_digest": report.latest_state_digest or None,
        "applied_at": site_time(report.applied_at),
        "failure_count": len(report.failures),
        "failure_reason": storable(f"{first.reference}: {first.reason}") if first else "",
        "is_rolled_back": report.is_rolled_back,
        "image_count": report.image_count,
    }


def made_at(report: StatusReport, now: datetime) -> datetime:
    """Return when a report was made, as far as the site's clock can be believed; else now."""
    moment = site_time(report.request_created_time)
    return now if moment is None or moment > now + LATEST_AHEAD else moment


def is_late(made: datetime, newest_made: datetime | None, newest_received: datetime | None, now: datetime) -> bool:
    """Tell whether a report was kept at the site and comes after a newer one: then it is history, not the truth.

    A clock that was set back looks alike, but only for a moment: the kept reports of a site come together with its
    newest, whereas after a jump nothing newer comes. So what is "older" by more than a week, or comes when the
    newest has not been heard of for a quarter of an hour, is the truth after all.

    Args:
        made: see ``made_at``.
        newest_made: the same of the newest report so far; None: there is none.
        newest_received: when that came, by our clock.
        now: this moment.
    """
    if newest_made is None or newest_received is None or made >= newest_made:
        return False
    return newest_made - made <= OLDEST_KEPT and now - newest_received <= 3 * LATEST_AHEAD


def site_time(moment: datetime | None) -> datetime | None:
    """Return a moment of a site's clock in UTC; None for one that cannot be."""
    if moment is None or moment.year < _EARLIEST_YEAR:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return None  # the last day of year 9999, west of Greenwich


def storable(text: str) -> str:
    """Return a text that every database takes: PostgreSQL's has no NUL, and UTF-8 no half characters."""
    return text[:_REASON_LONGEST].encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
