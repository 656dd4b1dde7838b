"""Composing the status report: what the site follows, what it holds, how its last run went. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.state.news import news_digest
from harbor_satellite.state.wire import LIST_MAX_LENGTH, CachedImage, ImageDecision, StatusReport

if TYPE_CHECKING:
    from datetime import datetime

    from harbor_satellite.satellite.applied import Applied

_REASON_LENGTH: Final = 200
"""Characters of a reason in a report: ten thousand failures, too, must fit into what the centre takes; all of it is
in `edge why`."""


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What a report says besides the record of the last run."""

    storage_used_bytes: int = 0
    """Used bytes of the disk that holds the satellite's folder."""
    bytes_today: int = 0
    bytes_this_month: int = 0
    decisions: tuple[ImageDecision, ...] = ()
    is_rolled_back: bool = False
    storage_free_bytes: int | None = None
    """Free bytes of the disk that the local registry fills; None: it does not say."""
    link_bytes_per_second: int | None = None
    """See ``link_rate``."""
    config_digest: str = ""
    """Of the centre's config that is applied; empty: it said nothing."""
    report_interval_seconds: int = 0
    """When the next report is due; 0: nobody knows."""
    own_schedule: str = ""
    """Cron that was set at the site; empty: none."""
    own_timezone: str = ""
    """IANA name that was set at the site; empty: none."""


def compose_report(satellite: str, applied: Applied, facts: SiteFacts, now: datetime) -> StatusReport:
    """Build the body of a report.

    Args:
        satellite: who reports.
        applied: the record of the last run.
        facts: what else there is to say.
        now: the time of the report.
    """
    failures = [failure.model_copy(update={"reason": failure.reason[:_REASON_LENGTH]}) for failure in applied.failures]
    decisions = [item.model_copy(update={"reason": item.reason[:_REASON_LENGTH]}) for item in facts.decisions]
    names = sorted(applied.owned)[:LIST_MAX_LENGTH]
    images = [CachedImage(reference=str(name), size_bytes=applied.sizes.get(name, 0)) for name in names]
    run = applied.last_run
    report = StatusReport(
        name=satellite,
        activity=run.summary if run else "no run yet",
        # Only a state that the site is wholly on counts as applied.
        latest_state_digest=str(applied.state_digest) if applied.is_converged else "",
        latest_config_digest=facts.config_digest,
        storage_used_bytes=facts.storage_used_bytes,
        request_created_time=now,
        last_sync_duration_ms=round(run.seconds * 1000) if run else 0,
        image_count=len(applied.owned),
        cached_images=images,
        applied_at=applied.applied_at,
        groups=list(applied.groups[:LIST_MAX_LENGTH]),
        copied_count=run.copied_count if run else 0,
        deleted_count=run.deleted_count if run else 0,
        bytes_from_source=run.bytes_from_source if run else 0,
        failures=failures[:LIST_MAX_LENGTH],
        decisions=decisions[:LIST_MAX_LENGTH],
        bytes_today=facts.bytes_today,
        bytes_this_month=facts.bytes_this_month,
        is_rolled_back=facts.is_rolled_back,
        storage_free_bytes=facts.storage_free_bytes,
        link_bytes_per_second=facts.link_bytes_per_second,
        state_report_interval=f"{facts.report_interval_seconds}s" if facts.report_interval_seconds else "",
        own_schedule=facts.own_schedule,
        own_timezone=facts.own_timezone,
    )
    return report.model_copy(update={"news_digest": news_digest(report)})
