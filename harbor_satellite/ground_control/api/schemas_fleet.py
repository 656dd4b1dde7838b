"""HTTP bodies of the fleet: rows, counts, histories and labels."""

from datetime import datetime

from pydantic import RootModel

from harbor_satellite.ground_control.api.schemas import Body
from harbor_satellite.ground_control.fleet.fleet_reasons import FollowedGroup
from harbor_satellite.ground_control.fleet.fleet_view import FleetRow, FleetSummary, GroupProgress
from harbor_satellite.ground_control.models import SatelliteReport
from harbor_satellite.state.wire import AppliedGroup


class LabelsBody(RootModel[dict[str, str]]):
    """A satellite's labels, all of them: key → value."""


class FollowedGroupBody(Body):
    """One group of a satellite: where it should be, and where it is."""

    group: str
    wanted_generation: int
    applied_generation: int
    is_held: bool
    """Whether an operator has pinned the satellite there."""
    unresolved_count: int

    @classmethod
    def of(cls, item: FollowedGroup) -> "FollowedGroupBody":
        """Build it from a value."""
        return cls(
            group=item.group,
            wanted_generation=item.wanted_generation,
            applied_generation=item.applied_generation,
            is_held=item.is_held,
            unresolved_count=item.unresolved_count,
        )


class FleetRowBody(Body):
    """One satellite in the fleet: in which state, and why."""

    name: str
    state: str
    reason: str
    """One line; empty: in step, and nothing to say."""
    lag_seconds: float | None
    """0 in step; null if nothing was published for it."""
    last_seen: datetime | None
    lifecycle: str
    lifecycle_since: datetime | None
    labels: dict[str, str]
    groups: list[FollowedGroupBody]
    state_digest: str | None
    """What the centre last published for it."""
    applied_digest: str | None
    """What the site is wholly on."""
    activity: str
    image_count: int
    failure_count: int
    is_rolled_back: bool
    bytes_today: int
    """Read from the source, by the site's calendar."""
    bytes_this_month: int
    storage_free_bytes: int | None
    link_bytes_per_second: int | None

    @classmethod
    def of(cls, row: FleetRow) -> "FleetRowBody":
        """Build it from a value."""
        satellite = row.satellite
        return cls(
            name=satellite.name,
            state=row.state,
            reason=row.reason,
            lag_seconds=row.lag_seconds,
            last_seen=satellite.last_seen,
            lifecycle=satellite.lifecycle,
            lifecycle_since=satellite.lifecycle_since or satellite.created_at,
            labels=dict(row.labels),
            groups=[FollowedGroupBody.of(item) for item in row.groups],
            state_digest=satellite.state_digest,
            applied_digest=satellite.applied_digest,
            activity=satellite.activity,
            image_count=satellite.image_count,
            failure_count=satellite.failure_count,
            is_rolled_back=satellite.is_rolled_back,
            bytes_today=satellite.bytes_today,
            bytes_this_month=satellite.bytes_this_month,
            storage_free_bytes=satellite.storage_free_bytes,
            link_bytes_per_second=satellite.link_bytes_per_second,
        )


class GroupProgressBody(Body):
    """How many of a group's satellites are on the generation that they should be on."""

    group: str
    generation: int
    """The highest that any of them should be on; 0: none."""
    satellite_count: int
    in_step_count: int

    @classmethod
    def of(cls, item: GroupProgress) -> "GroupProgressBody":
        """Build it from a value."""
        return cls(
            group=item.group,
            generation=item.generation,
            satellite_count=item.satellite_count,
            in_step_count=item.in_step_count,
        )


class FleetSummaryBody(Body):
    """The whole fleet in a few numbers."""

    satellite_count: int
    states: dict[str, int]
    lifecycles: dict[str, int]
    oldest_lag_seconds: float
    """Of satellites that were seen and are not revoked; 0: all are in step."""
    groups: list[GroupProgressBody]

    @classmethod
    def of(cls, summary: FleetSummary) -> "FleetSummaryBody":
        """Build it from a value."""
        counts = summary.counts
        return cls(
            satellite_count=sum(counts.states.values()),
            states={str(state): count for state, count in counts.states.items()},
            lifecycles=dict(counts.lifecycles),
            oldest_lag_seconds=counts.oldest_lag_seconds,
            groups=[GroupProgressBody.of(item) for item in summary.groups],
        )


class ReportBody(Body):
    """One report of a site that said something new."""

    id: int
    received_at: datetime
    reported_at: datetime
    """By the site's clock, which may be wrong; out of order if it was kept at the site while the centre was away."""
    latest_state_digest: str | None
    applied_at: datetime | None
    bytes_from_source: int
    image_count: int
    failure_count: int
    groups: list[AppliedGroup]

    @classmethod
    def of(cls, row: SatelliteReport) -> "ReportBody":
        """Build it from a row."""
        groups = sorted((row.applied_groups or {}).items())
        return cls(
            id=row.id,
            received_at=row.received_at,
            reported_at=row.reported_at,
            latest_state_digest=row.latest_state_digest,
            applied_at=row.applied_at,
            bytes_from_source=row.bytes_from_source,
            image_count=row.image_count,
            failure_count=row.failure_count,
            groups=[AppliedGroup(group=group, generation=held[0], digest=held[1]) for group, held in groups],
        )
