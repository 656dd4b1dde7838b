"""What of a status report is news: the site sends less, and the centre writes less, while there is none. Pure.

Site and centre must come to the same word for the same report, so it is made here for both.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harbor_satellite.state.wire import StatusReport

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
# Figures that change although nothing happened, or often while something does: they never make a report news.
_FIGURES: Final = {
    "activity",
    "bytes_from_source",
    "bytes_this_month",
    "bytes_today",
    "cpu_percent",
    "last_sync_duration_ms",
    "link_bytes_per_second",
    "memory_used_bytes",
    "request_created_time",
    "storage_free_bytes",
    "storage_used_bytes",
}
_ABOUT_ITSELF: Final = {"dropped_receipts", "is_as_before", "news_digest"}
_LEFT_OUT: Final = frozenset({*_FIGURES, *_ABOUT_ITSELF})
_ALWAYS: Final = frozenset({"name", "state_report_interval", "is_as_before", "news_digest", *_FIGURES})


def news_digest(report: StatusReport) -> str:
    """Return one word for all that is news in a report: an equal one says that nothing happened.

    Activity counts without its numbers: every run of a site at rest says how long it took.

    Args:
        report: a whole one.
    """
    news = report.model_dump_json(exclude=set(_LEFT_OUT))
    return sha256(f"{_NUMBER.sub('#', report.activity)} {news}".encode(errors="replace")).hexdigest()


def as_before(report: StatusReport) -> StatusReport:
    """Return what has to be sent of a report if the centre took one with the same news: times, disk and bytes.

    Args:
        report: a whole one, with its ``news_digest``.
    """
    kept = {name: getattr(report, name) for name in _ALWAYS & report.model_fields_set}
    return type(report).model_construct(**{**kept, "is_as_before": True})
