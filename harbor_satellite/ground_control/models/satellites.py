"""Tables of satellites: who they are, what they follow, log in with and report."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Index,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from harbor_satellite.ground_control.models.base import (
    Base,
    BigId,
    Digest,
    GroupId,
    Id,
    MaybeMoment,
    Moment,
    Name,
    SatelliteId,
    Sha256Hex,
    Texts,
)


class Satellite(Base):
    """One edge site's agent."""

    __tablename__ = "satellites"
    __table_args__ = (
        UniqueConstraint("name"),
        Index(None, "behind_since"),
        CheckConstraint("lifecycle IN ('registered', 'active', 'stale', 'revoked')", name="lifecycle"),
    )

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
    state_serial: Mapped[int] = mapped_column(BigInteger, server_default="0")  # of that state; never goes back
    lifecycle: Mapped[str] = mapped_column(String(16), server_default="registered")
    lifecycle_since: Mapped[MaybeMoment]  # null: since it was made
    credential_serial: Mapped[int] = mapped_column(server_default="0")  # credentials made so far
    # What follows repeats its newest report, so that the fleet can be listed from one table.
    applied_digest: Mapped[Digest | None]  # the satellite state that it says it is wholly on
    applied_at: Mapped[MaybeMoment]  # the site's clock
    behind_since: Mapped[MaybeMoment]  # our clock: the oldest publication not applied; null: in step
    reported_at: Mapped[MaybeMoment]  # when the newest report was made: the site's clock, as far as it is believed
    report_received_at: Mapped[MaybeMoment]  # our clock: when that came; last_seen follows polls too
    report_fingerprint: Mapped[Sha256Hex | None]  # of all that matters in the newest report
    activity: Mapped[str] = mapped_column(Text, server_default=text("''"))
    failure_count: Mapped[int] = mapped_column(server_default="0")
    failure_reason: Mapped[str] = mapped_column(Text, server_default=text("''"))  # of the first failure
    is_rolled_back: Mapped[bool] = mapped_column(server_default=false())  # at the site, on purpose
    image_count: Mapped[int] = mapped_column(BigInteger, server_default="0")
    bytes_today: Mapped[int] = mapped_column(BigInteger, server_default="0")
    bytes_this_month: Mapped[int] = mapped_column(BigInteger, server_default="0")
    storage_free_bytes: Mapped[int | None] = mapped_column(BigInteger)
    link_bytes_per_second: Mapped[int | None] = mapped_column(BigInteger)  # as the site last measured
    own_schedule: Mapped[str] = mapped_column(String(128), server_default=text("''"))  # cron set at the site, checked
    own_timezone: Mapped[str] = mapped_column(String(64), server_default=text("''"))  # IANA name set there, checked


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
    __table_args__ = (UniqueConstraint("username"), Index(None, "satellite_id"), Index(None, "account_name"))

    id: Mapped[Id]
    satellite_id: Mapped[SatelliteId]
    username: Mapped[str] = mapped_column(String(255))
    secret_hash: Mapped[Sha256Hex]  # the secret is random and long: a fast hash is enough
    source_credential_id: Mapped[str | None] = mapped_column(String(255))  # the robot's id at Harbor
    expires_at: Mapped[MaybeMoment]
    granted_projects: Mapped[Texts]  # sorted; what the source was last told
    account_name: Mapped[Name | None]  # what the source was asked for, without a prefix of its own
    first_used_at: Mapped[MaybeMoment]  # null: the site may still repeat its claim, or its renewal
    renewal_key_hash: Mapped[Sha256Hex | None]  # who repeats the renewal with this key is the same site
    is_renewal_due: Mapped[bool] = mapped_column(server_default=false())  # the site is told with its next report
    superseded_at: Mapped[MaybeMoment]  # a newer one has been used; kept for a grace, then deleted at the source
    revoked_at: Mapped[MaybeMoment]  # accepted by nobody here from then on; still to be deleted at the source
    created_at: Mapped[Moment]


class SatelliteReport(Base):
    """One status report; only the newest of a satellite keeps its body."""

    __tablename__ = "satellite_reports"
    __table_args__ = (Index(None, "satellite_id", "id"), Index(None, "received_at"))

    id: Mapped[BigId]
    satellite_id: Mapped[SatelliteId]
    received_at: Mapped[Moment]  # our clock
    reported_at: Mapped[Moment]  # the site's clock: may be wrong
    latest_state_digest: Mapped[Digest | None]
    applied_at: Mapped[MaybeMoment]  # the site's clock
    bytes_from_source: Mapped[int] = mapped_column(BigInteger)
    image_count: Mapped[int] = mapped_column(BigInteger)
    failure_count: Mapped[int]
    applied_groups: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)  # group → [generation, digest]
    body: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)


class SatelliteLabel(Base):
    """One label of a satellite: how operators name parts of the fleet."""

    __tablename__ = "satellite_labels"
    __table_args__ = (Index(None, "key", "value"),)

    satellite_id: Mapped[SatelliteId] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(63), primary_key=True)
    value: Mapped[str] = mapped_column(String(63))


class AppliedGroupRow(Base):
    """Which generation of a group's state a site follows, as it last said."""

    __tablename__ = "applied_groups"
    __table_args__ = (Index(None, "group_name", "generation"),)

    satellite_id: Mapped[SatelliteId] = mapped_column(primary_key=True)
    group_name: Mapped[Name] = mapped_column(primary_key=True)
    generation: Mapped[int]
    digest: Mapped[str] = mapped_column(String(160))
    reported_at: Mapped[Moment]  # our clock, when it first said so


class RetiredSatellite(Base):
    """A deleted satellite of which something may be left at the source or in Prefect; gone once that is."""

    __tablename__ = "retired_satellites"

    name: Mapped[Name] = mapped_column(primary_key=True)
    deleted_at: Mapped[Moment]


class RetiredAccount(Base):
    """An account of a deleted satellite that is still to be deleted at the source; its name is not free until then."""

    __tablename__ = "retired_accounts"
    __table_args__ = (Index(None, "satellite"),)

    name: Mapped[Name] = mapped_column(primary_key=True)
    satellite: Mapped[Name]
    source_credential_id: Mapped[str | None] = mapped_column(String(255))


class SatelliteConfig(Base):
    """A named config: how the satellites that it is given to shall work."""

    __tablename__ = "configs"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[Id]
    name: Mapped[Name]
    source_registry: Mapped[str] = mapped_column("registry", String(512))  # the original's; carried, not interpreted
    content: Mapped[Any] = mapped_column(JSON)
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]


class Revision(Base):
    """Counts changes of one kind, so that whoever keeps a copy in memory sees that it is out of date."""

    __tablename__ = "revisions"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)  # such as credentials
    number: Mapped[int] = mapped_column(BigInteger)
