"""The tables of Ground Control: columns and what they mean.

What must not live here: queries and rules. Every rule that the database can hold is a named constraint.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DEFAULT_SCHEDULE: Final = "*/5 * * * *"
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


class User(Base):
    """A person, or a program acting for one."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("username"),
        CheckConstraint("role IN ('system_admin', 'admin')", name="role"),
    )

    id: Mapped[Id]
    username: Mapped[Name]
    password_hash: Mapped[str] = mapped_column(Text)  # argon2id, with its parameters and salt
    role: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]


class UserSession(Base):
    """One login; its token exists in clear only in the answer that issued it."""

    __tablename__ = "sessions"
    __table_args__ = (UniqueConstraint("token_hash"), Index(None, "user_id"))

    id: Mapped[Id]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[Sha256Hex]
    expires_at: Mapped[Moment]
    created_at: Mapped[Moment]


class LoginAttempts(Base):
    """Failed logins of a user since the last good one; only users that exist have a row."""

    __tablename__ = "login_attempts"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    failed_count: Mapped[int]
    last_failed_at: Mapped[Moment]
    locked_until: Mapped[MaybeMoment]


class Group(Base):
    """A named set of artifacts that its satellites shall hold."""

    __tablename__ = "groups"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[Id]
    name: Mapped[Name]
    # SQLAlchemy keeps the name "registry" for itself.
    source_registry: Mapped[str] = mapped_column("registry", String(512))  # where its artifacts are pulled from
    expires_after_seconds: Mapped[int | None]  # how long a published state may be acted on; null: for ever
    generation_floor: Mapped[int]  # the last generation of a deleted group of this name; sites may remember it
    policy: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)  # as states carry it; null: the default
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]


class RetiredGroup(Base):
    """How far a deleted group had come: sites refuse generations that go back, so a new one must go on."""

    __tablename__ = "retired_groups"

    name: Mapped[Name] = mapped_column(primary_key=True)
    generation: Mapped[int]


class GroupArtifact(Base):
    """One entry of a group as it was asked for; tags are resolved when the group is published."""

    __tablename__ = "group_artifacts"
    __table_args__ = (Index(None, "group_id"),)

    id: Mapped[BigId]
    group_id: Mapped[GroupId]
    repository: Mapped[str] = mapped_column(String(255))
    tags: Mapped[Texts]
    digest: Mapped[Digest | None]  # null: whatever the tags name when the group is published
    labels: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)  # carried, not interpreted
    type: Mapped[str] = mapped_column(String(64))
    deleted: Mapped[bool]  # named, but not to be held
    priority: Mapped[int] = mapped_column(server_default="0")  # higher ones cross the link first


class GroupState(Base):
    """One published generation of a group."""

    __tablename__ = "group_states"
    __table_args__ = (UniqueConstraint("group_id", "generation"),)

    id: Mapped[BigId]
    group_id: Mapped[GroupId]
    generation: Mapped[int]
    digest: Mapped[Digest]  # what satellite states pin
    content: Mapped[str] = mapped_column(Text)  # canonical JSON of the state artifact
    created_at: Mapped[Moment]


class UnresolvedArtifact(Base):
    """One entry that the source did not have when its group was last to be published."""

    __tablename__ = "unresolved_artifacts"

    group_id: Mapped[GroupId] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(512), primary_key=True)  # repository:tag or repository@digest
    reason: Mapped[str] = mapped_column(Text)  # of the last attempt; may repeat what the source said
    since: Mapped[Moment]  # of the first attempt in a row that did not find it


class Satellite(Base):
    """One edge site's agent."""

    __tablename__ = "satellites"
    __table_args__ = (UniqueConstraint("name"), Index(None, "last_seen"))

    id: Mapped[Id]
    name: Mapped[Name]
    schedule: Mapped[str] = mapped_column(String(128))  # 5-field cron in the site's time zone
    config_name: Mapped[Name]  # empty: none
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]
    last_seen: Mapped[MaybeMoment]  # our clock, when a report was accepted
    report_interval_seconds: Mapped[int | None]  # as the site last said; not trusted to be kept
    state_digest: Mapped[Digest | None]  # the satellite state that the centre last published for it
    state_published_at: Mapped[MaybeMoment]


class SatelliteStateHistory(Base):
    """Which satellite states were published when, so that a site's lag can be told exactly."""

    __tablename__ = "satellite_states"
    __table_args__ = (Index(None, "satellite_id"),)

    id: Mapped[BigId]
    satellite_id: Mapped[SatelliteId]
    digest: Mapped[Digest]
    published_at: Mapped[Moment]


class SatelliteGroup(Base):
    """Which satellite follows which group."""

    __tablename__ = "satellite_groups"
    __table_args__ = (Index(None, "group_id"),)

    satellite_id: Mapped[SatelliteId] = mapped_column(primary_key=True)
    group_id: Mapped[GroupId] = mapped_column(primary_key=True)


class RegistrationToken(Base):
    """A one-time token: who has it may become this satellite, once."""

    __tablename__ = "registration_tokens"
    __table_args__ = (UniqueConstraint("token_hash"), Index(None, "satellite_id"))

    id: Mapped[Id]
    satellite_id: Mapped[SatelliteId]
    token_hash: Mapped[Sha256Hex]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    claimed_at: Mapped[MaybeMoment]  # null, or set once by the claim that won
    claim_key_hash: Mapped[Sha256Hex | None]  # who repeats the claim with this key is the same site
    revoked_at: Mapped[MaybeMoment]


class Credential(Base):
    """What a satellite pulls and reports with."""

    __tablename__ = "credentials"
    __table_args__ = (UniqueConstraint("username"), Index(None, "satellite_id"))

    id: Mapped[Id]
    satellite_id: Mapped[SatelliteId]
    username: Mapped[str] = mapped_column(String(255))
    secret_hash: Mapped[Sha256Hex]  # the secret is random and long: a fast hash is enough
    source_credential_id: Mapped[str | None] = mapped_column(String(255))  # the robot's id at Harbor
    expires_at: Mapped[MaybeMoment]
    granted_projects: Mapped[Texts]  # sorted; what the source was last told
    first_used_at: Mapped[MaybeMoment]  # null: the site may still repeat its claim
    created_at: Mapped[Moment]


class SatelliteReport(Base):
    """One status report; only the newest of a satellite keeps its body."""

    __tablename__ = "satellite_reports"
    __table_args__ = (Index(None, "satellite_id", "id"),)

    id: Mapped[BigId]
    satellite_id: Mapped[SatelliteId]
    received_at: Mapped[Moment]  # our clock
    reported_at: Mapped[Moment]  # the site's clock: may be wrong
    latest_state_digest: Mapped[Digest | None]
    applied_at: Mapped[MaybeMoment]  # the site's clock
    bytes_from_source: Mapped[int] = mapped_column(BigInteger)
    image_count: Mapped[int] = mapped_column(BigInteger)
    failure_count: Mapped[int]
    body: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)


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
