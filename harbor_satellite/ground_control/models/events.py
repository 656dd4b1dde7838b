"""The outbox: events on their way to Prefect."""

from sqlalchemy import JSON, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from harbor_satellite.ground_control.models.base import Base, BigId, MaybeMoment, Moment


class OutboxEvent(Base):
    """An event that must reach Prefect at least once; written with the change it tells of."""

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "delivered_at", "available_at"),)

    id: Mapped[BigId]
    event_id: Mapped[str] = mapped_column(String(36))  # the same in every attempt
    event: Mapped[str] = mapped_column(String(128))
    resource_id: Mapped[str] = mapped_column(String(255))
    payload: Mapped[dict[str, str]] = mapped_column(JSON)
    created_at: Mapped[Moment]
    available_at: Mapped[Moment]  # not before this moment: a lease while posting, then a backoff
    attempts: Mapped[int]
    delivered_at: Mapped[MaybeMoment]
