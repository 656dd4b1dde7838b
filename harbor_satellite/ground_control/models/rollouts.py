"""Tables of rollouts: which generation of a group each satellite may have, and who moves it there."""

from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from harbor_satellite.ground_control.models.base import (
    Base,
    BigId,
    GroupId,
    Id,
    MaybeMoment,
    Moment,
    Name,
    SatelliteId,
)


class GenerationPin(Base):
    """Which generation of a group a satellite follows, if that is not simply the group's own."""

    __tablename__ = "generation_pins"
    __table_args__ = (Index(None, "group_id"),)

    satellite_id: Mapped[SatelliteId] = mapped_column(primary_key=True)
    group_id: Mapped[GroupId] = mapped_column(primary_key=True)
    generation: Mapped[int]  # 0: nothing of this group yet
    is_rollback: Mapped[bool] = mapped_column(server_default=false())  # the site shall take it though it is older
    is_held: Mapped[bool] = mapped_column(server_default=false())  # pinned by an operator: no rollout moves it
    updated_at: Mapped[Moment]


class Rollout(Base):
    """One movement of a group's satellites to a generation, in waves; all that its flow knows is in these rows."""

    __tablename__ = "rollouts"
    __table_args__ = (
        Index(None, "group_id"),
        Index(None, "state"),
        CheckConstraint(
            "state IN ('planned', 'running', 'soaking', 'paused', 'aborted', 'completed', 'rolled_back')",
            name="state",
        ),
    )

    id: Mapped[Id]
    group_id: Mapped[GroupId]
    generation: Mapped[int]  # where to
    is_rollback: Mapped[bool]  # to an older generation, on purpose
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)  # why it is in that state; empty: as planned
    waves: Mapped[Any] = mapped_column(JSON)  # as validated by the schema: names, shares, labels, soak times
    max_failures: Mapped[int]  # sites that may fail before the rollout stops itself
    receipt_timeout_seconds: Mapped[int]  # after which a site that was told and says nothing counts as failed
    current_wave: Mapped[int]  # from 0
    wave_started_at: Mapped[MaybeMoment]
    wave_settled_at: Mapped[MaybeMoment]  # the soak time counts from here
    paused_state: Mapped[str] = mapped_column(String(16), server_default=text("''"))  # paused: what to go on as
    created_by: Mapped[Name]
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]


class RolloutSatellite(Base):
    """One satellite's part in a rollout."""

    __tablename__ = "rollout_satellites"
    __table_args__ = (
        Index(None, "satellite_id"),
        Index(None, "rollout_id", "wave", "state"),
        CheckConstraint("state IN ('waiting', 'released', 'succeeded', 'failed', 'skipped')", name="state"),
    )

    id: Mapped[BigId]
    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id", ondelete="CASCADE"))
    satellite_id: Mapped[SatelliteId]
    wave: Mapped[int]  # from 0
    state: Mapped[str] = mapped_column(String(16))
    from_generation: Mapped[int]  # what it followed before; 0: nothing
    released_at: Mapped[MaybeMoment]
    settled_at: Mapped[MaybeMoment]
    reason: Mapped[str] = mapped_column(Text)
