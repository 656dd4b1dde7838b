"""Tables of people: users, their sessions and tokens, and what they changed."""

from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from harbor_satellite.ground_control.models.base import Base, BigId, Id, MaybeMoment, Moment, Name, Sha256Hex


class User(Base):
    """A person, or a program acting for one."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("username"),
        CheckConstraint("role IN ('system_admin', 'admin', 'operator')", name="role"),
    )

    id: Mapped[Id]
    username: Mapped[Name]
    password_hash: Mapped[str] = mapped_column(Text)  # argon2id, with its parameters and salt
    role: Mapped[str] = mapped_column(String(16))  # operator: may read everything and change nothing
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


class ApiToken(Base):
    """A token of a user for programs; it exists in clear only in the answer that issued it."""

    __tablename__ = "api_tokens"
    __table_args__ = (
        UniqueConstraint("token_hash"),
        UniqueConstraint("user_id", "name"),
        CheckConstraint("role IN ('system_admin', 'admin', 'operator')", name="role"),
    )

    id: Mapped[Id]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[Name]
    role: Mapped[str] = mapped_column(String(16))  # what it may do is the lesser of this and the user's role
    token_hash: Mapped[Sha256Hex]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    last_used_at: Mapped[MaybeMoment]  # to the hour or so: not every use is written


class AuditEvent(Base):
    """One change, or one that was refused; never changed afterwards, and without secrets."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "occurred_at"), Index(None, "resource"))

    id: Mapped[BigId]
    event_id: Mapped[str] = mapped_column(String(36))  # the same in the JSON line
    occurred_at: Mapped[Moment]
    actor: Mapped[str] = mapped_column(String(255))  # user:NAME, satellite:NAME, flow:NAME or anonymous
    source_address: Mapped[str] = mapped_column(String(64))  # of the peer; empty: a flow
    request_id: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))  # such as group.sync
    resource: Mapped[str] = mapped_column(String(255))  # such as group:shops
    outcome: Mapped[str] = mapped_column(String(16))  # done, refused or failed
    reason: Mapped[str] = mapped_column(Text)  # of a refusal or failure; may be empty
    changes: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)  # field → [from, to]
