"""What all tables share: column kinds, and one way of naming constraints."""

from datetime import UTC, datetime
from typing import Annotated, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Integer,
    MetaData,
    String,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, mapped_column

DEFAULT_SCHEDULE: Final = "0 * * * *"
"""5-field cron; often enough to be useful, seldom enough for a metered link with nothing to do."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC on both databases; SQLite has no zones, so they are taken off and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the database UTC; a moment without a zone is a mistake of the caller."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time without a zone: {value!r}")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give Python a moment that knows it is in UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


BIG_ID: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only in INTEGER

Id = Annotated[int, mapped_column(Integer, primary_key=True)]
BigId = Annotated[int, mapped_column(BIG_ID, primary_key=True)]
Name = Annotated[str, mapped_column(String(128))]
Digest = Annotated[str, mapped_column(String(160))]
Sha256Hex = Annotated[str, mapped_column(String(64))]
Moment = Annotated[datetime, mapped_column(UtcDateTime)]
MaybeMoment = Annotated[datetime | None, mapped_column(UtcDateTime)]
Texts = Annotated[list[str], mapped_column(JSON)]
SatelliteId = Annotated[int, mapped_column(ForeignKey("satellites.id", ondelete="CASCADE"))]
GroupId = Annotated[int, mapped_column(ForeignKey("groups.id", ondelete="CASCADE"))]


class Base(DeclarativeBase):
    """What all tables share: one way of naming constraints, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
