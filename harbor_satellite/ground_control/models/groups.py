"""Tables of groups: what they name, by which of three ways, and what was published of them."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, String, Text, UniqueConstraint, false, text
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
    Sha256Hex,
    Texts,
)


class Group(Base):
    """A named set of artifacts that its satellites shall hold."""

    __tablename__ = "groups"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[Id]
    name: Mapped[Name]
    # SQLAlchemy keeps the name "registry" for itself.
    source_registry: Mapped[str] = mapped_column("registry", String(512))  # where its artifacts are pulled from
    expires_after_seconds: Mapped[int | None]  # how long a published state may be acted on; null: for ever
    config_name: Mapped[Name] = mapped_column(server_default=text("''"))  # of its satellites' config; empty: none
    is_staged: Mapped[bool] = mapped_column(server_default=false())  # generations reach sites by rollouts only
    released_generation: Mapped[int | None]  # staged: what satellites without a pin follow; null: nothing yet
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
    __table_args__ = (Index(None, "group_id"), Index(None, "repository"))

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
    projects: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)  # that it names; null: to be read
    created_at: Mapped[Moment]


class UnresolvedArtifact(Base):
    """One entry that the source did not have when its group was last to be published."""

    __tablename__ = "unresolved_artifacts"

    group_id: Mapped[GroupId] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(512), primary_key=True)  # repository:tag or repository@digest
    reason: Mapped[str] = mapped_column(Text)  # of the last attempt; may repeat what the source said
    since: Mapped[Moment]  # of the first attempt in a row that did not find it


class GroupSelector(Base):
    """A wish evaluated against Harbor whenever the group is published: what matches belongs to the group."""

    __tablename__ = "group_selectors"
    __table_args__ = (Index(None, "group_id"),)

    id: Mapped[Id]
    group_id: Mapped[GroupId]
    project: Mapped[str] = mapped_column(String(255))
    repository: Mapped[str] = mapped_column(String(255))  # glob below the project
    tag: Mapped[str] = mapped_column(String(255))  # glob
    labels: Mapped[Texts]  # an artifact must have all of them
    platforms: Mapped[Texts]  # an artifact must have one of them; empty: whatever
    newest: Mapped[int | None]  # of each repository, by push time; null: all
    priority: Mapped[int]


class GroupRule(Base):
    """The credential with which a replication rule of Harbor pushes manifests to a group's sink."""

    __tablename__ = "group_rules"
    __table_args__ = (UniqueConstraint("username"),)

    group_id: Mapped[GroupId] = mapped_column(primary_key=True)
    username: Mapped[Name]
    secret_hash: Mapped[Sha256Hex]
    created_at: Mapped[Moment]
    last_push_at: Mapped[MaybeMoment]
    harbor_registry_id: Mapped[int | None]  # the endpoint at Harbor, if Ground Control made it
    harbor_policy_id: Mapped[int | None]  # the rule at Harbor, if Ground Control made it


class RuleMember(Base):
    """One tag that a replication rule has pushed to a group's sink: a membership record, nothing more."""

    __tablename__ = "rule_members"
    __table_args__ = (
        UniqueConstraint("group_id", "repository", "tag"),
        Index(None, "group_id", "digest"),
        Index(None, "repository"),
    )

    id: Mapped[BigId]
    group_id: Mapped[GroupId]
    repository: Mapped[str] = mapped_column(String(255))  # as at the source, without the group's namespace
    # A digest here: pushed by digest alone (a child, a referrer), which makes it no member.
    tag: Mapped[str] = mapped_column(String(160))
    digest: Mapped[Digest]
    media_type: Mapped[str] = mapped_column(String(255))
    size: Mapped[int] = mapped_column(BigInteger)
    pushed_at: Mapped[Moment]


class Webhook(Base):
    """The secret that Harbor's webhooks of one project must bring, and when one last came."""

    __tablename__ = "webhooks"

    project: Mapped[str] = mapped_column(String(255), primary_key=True)
    secret_hash: Mapped[Sha256Hex]
    created_at: Mapped[Moment]
    last_event_at: Mapped[MaybeMoment]
    harbor_policy_id: Mapped[int | None]  # at Harbor, if Ground Control made it
