"""HTTP bodies of the API: the original's keys (Go's field names in answers), then ours."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer

from harbor_satellite.ground_control.fleet.reports import SatelliteStatus
from harbor_satellite.ground_control.groups.unresolved import KnownUnresolved
from harbor_satellite.ground_control.models import Satellite
from harbor_satellite.ground_control.satellites.satellites import is_stale
from harbor_satellite.state.wire import AppliedGroup, ImageDecision, ImageFailure

Text = Annotated[str, Field(max_length=1024)]
_Names = Annotated[list[Text], Field(max_length=10_000)]


class Body(BaseModel):
    """What all bodies share: unknown keys are ignored, as the original does."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class ErrorBody(Body):
    """Every error."""

    message: str
    code: int


class TokenBody(Body):
    """A token, shown this once."""

    token: SecretStr
    expires_at: datetime

    @field_serializer("token", when_used="json")
    def _reveal(self, token: SecretStr) -> str:
        return token.get_secret_value()


class MessageBody(Body):
    """A sentence for people."""

    message: str


class SatelliteRegistration(Body):
    """A satellite to be."""

    name: Text
    groups: _Names | None = None
    config_name: Text | None = None
    schedule: Text | None = None


class ScheduleChange(Body):
    """When a satellite replicates: 5-field cron."""

    schedule: Text


class SatelliteBody(Body):
    """A satellite."""

    id: int = Field(serialization_alias="ID")
    name: str = Field(serialization_alias="Name")
    created_at: datetime = Field(serialization_alias="CreatedAt")
    updated_at: datetime = Field(serialization_alias="UpdatedAt")
    last_seen: datetime | None = Field(serialization_alias="LastSeen")
    heartbeat_interval: str | None = Field(serialization_alias="HeartbeatInterval")
    seconds_since_seen: int | None = Field(serialization_alias="SecondsSinceSeen")
    groups: list[str]
    config_name: str
    schedule: str
    own_schedule: str
    """Cron that was set at the site itself: it stands above every other; empty: none."""
    own_timezone: str
    """IANA name that was set at the site itself; likewise."""
    is_stale: bool
    state_digest: str | None
    """The satellite state that the centre last published for it."""
    state_published_at: datetime | None
    lifecycle: str
    """registered, active (it has reported), stale (it has gone silent) or revoked (nobody listens to it)."""
    lifecycle_since: datetime
    labels: dict[str, str]
    credential_expires_at: datetime | None
    """Of the credential that it uses; null: it has none yet, or one that never expires."""

    @classmethod
    def of(
        cls,
        satellite: Satellite,
        groups: list[str],
        now: datetime,
        *,
        credential_expires_at: datetime | None = None,
        labels: dict[str, str] | None = None,
    ) -> "SatelliteBody":
        """Build it from a row, the names of its groups, when its credential expires, and its labels."""
        seen = satellite.last_seen
        return cls(
            id=satellite.id,
            name=satellite.name,
            created_at=satellite.created_at,
            updated_at=satellite.updated_at,
            last_seen=seen,
            heartbeat_interval=_interval(satellite.report_interval_seconds),
            seconds_since_seen=int((now - seen).total_seconds()) if seen else None,
            groups=groups,
            config_name=satellite.config_name,
            schedule=satellite.schedule,
            own_schedule=satellite.own_schedule,
            own_timezone=satellite.own_timezone,
            is_stale=is_stale(satellite, now),
            state_digest=satellite.state_digest,
            state_published_at=satellite.state_published_at,
            lifecycle=satellite.lifecycle,
            lifecycle_since=satellite.lifecycle_since or satellite.created_at,
            labels=labels or {},
            credential_expires_at=credential_expires_at,
        )


class UnresolvedBody(Body):
    """One entry of a group that the source did not have when the group was last to be published."""

    reference: str
    """``repository:tag``, or ``repository@digest`` for an entry without a tag."""
    reason: str
    since: datetime
    """When the centre first missed it; it has missed it in every attempt from then on."""

    @classmethod
    def of(cls, known: KnownUnresolved) -> "UnresolvedBody":
        """Build it from what is known."""
        return cls(reference=known.reference, reason=known.reason, since=known.since)


class UnresolvedOfGroupBody(UnresolvedBody):
    """The same, among those of other groups."""

    group: str

    @classmethod
    def of(cls, known: KnownUnresolved) -> "UnresolvedOfGroupBody":
        """Build it from what is known."""
        return cls(group=known.group, reference=known.reference, reason=known.reason, since=known.since)


class StatusBody(Body):
    """What the centre knows about a site, and whether it is in step."""

    id: int = Field(serialization_alias="ID")
    satellite_id: int = Field(serialization_alias="SatelliteID")
    activity: str = Field(serialization_alias="Activity")
    latest_state_digest_of_original: str | None = Field(serialization_alias="LatestStateDigest")
    latest_config_digest: str | None = Field(serialization_alias="LatestConfigDigest")
    cpu_percent: float = Field(serialization_alias="CpuPercent")
    memory_used_bytes: int = Field(serialization_alias="MemoryUsedBytes")
    storage_used_bytes: int = Field(serialization_alias="StorageUsedBytes")
    last_sync_duration_ms: int = Field(serialization_alias="LastSyncDurationMs")
    image_count_of_original: int = Field(serialization_alias="ImageCount")
    reported_at_of_original: datetime = Field(serialization_alias="ReportedAt")
    created_at: datetime = Field(serialization_alias="CreatedAt")
    satellite: str
    latest_state_digest: str | None
    """What the site applied."""
    wanted_state_digest: str | None
    """What the centre last published for it."""
    in_step: bool
    lag_seconds: float | None
    """Since the oldest publication that the site has not applied; null if nothing was published."""
    is_rolled_back: bool
    """Whether the site went back to its previous generation and stays there: it is not in step on purpose."""
    unresolved: list[UnresolvedOfGroupBody]
    """What its groups name and the source does not have; a site without it is in step all the same."""
    applied_at: datetime | None
    reported_at: datetime
    last_seen: datetime | None
    is_stale: bool
    image_count: int
    copied_count: int
    deleted_count: int
    bytes_from_source: int
    """Read from the source by the last run."""
    bytes_today: int
    """Read from the source, by the site's calendar."""
    bytes_this_month: int
    dropped_receipts: int
    """Reports of runs that the site could not keep while it could not deliver them."""
    own_schedule: str
    """Cron that was set at the site itself: it stands above every other; empty: none."""
    own_timezone: str
    """IANA name that was set at the site itself; likewise."""
    groups: list[AppliedGroup]
    failures: list[ImageFailure]
    decisions: list[ImageDecision]
    """Of the last run that decided anything, each with its rule; an image that is not named was kept."""

    @classmethod
    def of(cls, status: SatelliteStatus, now: datetime) -> "StatusBody":
        """Build it from what the centre knows."""
        report, satellite = status.report, status.satellite
        digest = report.latest_state_digest or None
        return cls(
            id=status.report_id,
            satellite_id=satellite.id,
            activity=report.activity,
            latest_state_digest_of_original=digest,
            latest_config_digest=report.latest_config_digest or None,
            cpu_percent=report.cpu_percent,
            memory_used_bytes=report.memory_used_bytes,
            storage_used_bytes=report.storage_used_bytes,
            last_sync_duration_ms=report.last_sync_duration_ms,
            image_count_of_original=report.image_count,
            reported_at_of_original=status.reported_at,
            created_at=status.received_at,
            satellite=satellite.name,
            latest_state_digest=digest,
            wanted_state_digest=satellite.state_digest,
            in_step=status.is_in_step,
            lag_seconds=status.lag_seconds,
            is_rolled_back=report.is_rolled_back,
            unresolved=[UnresolvedOfGroupBody.of(known) for known in status.unresolved],
            applied_at=report.applied_at,
            reported_at=status.reported_at,
            last_seen=satellite.last_seen,
            is_stale=is_stale(satellite, now),
            image_count=report.image_count,
            copied_count=report.copied_count,
            deleted_count=report.deleted_count,
            bytes_from_source=report.bytes_from_source,
            bytes_today=report.bytes_today,
            bytes_this_month=report.bytes_this_month,
            dropped_receipts=report.dropped_receipts,
            own_schedule=satellite.own_schedule,
            own_timezone=satellite.own_timezone,
            groups=report.groups,
            failures=report.failures,
            decisions=report.decisions,
        )


def _interval(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    # The original's canonical form.
    return f"@every {seconds // 3600:02d}h{seconds // 60 % 60:02d}m{seconds % 60:02d}s"
