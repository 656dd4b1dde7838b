"""HTTP bodies of groups: the original's keys (Go's field names in answers), then ours."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from harbor_satellite.ground_control.api.schemas import Body, Text, UnresolvedBody
from harbor_satellite.ground_control.api.schemas_rules import SelectorBody
from harbor_satellite.ground_control.groups.group_changes import GroupChange
from harbor_satellite.ground_control.groups.group_entries import GroupEntry, group_entry
from harbor_satellite.ground_control.groups.policies import PLATFORMS_MAX_COUNT, changed_policy, read_policy
from harbor_satellite.ground_control.models import Group
from harbor_satellite.state.policy import KEY_MAX_LENGTH, KEYS_MAX_COUNT, GroupPolicy, Publish

_Artifacts = Annotated[list["ArtifactBody"], Field(max_length=20_000)]
_Platforms = Annotated[list[Text], Field(max_length=PLATFORMS_MAX_COUNT)]
_Keys = Annotated[list[Annotated[str, Field(max_length=KEY_MAX_LENGTH)]], Field(max_length=KEYS_MAX_COUNT)]


class ArtifactBody(Body):
    """One artifact of a group; ``tag`` is a list, as in the original."""

    repository: Text
    tags: Annotated[list[Text] | None, Field(alias="tag", max_length=1000)] = None
    labels: dict[str, str] | list[str] | None = None
    type: Text = ""
    digest: Text = ""
    deleted: bool = False
    priority: Annotated[int, Field(strict=True)] = 0
    """Higher ones cross the link first."""

    def entry(self) -> GroupEntry:
        """Return it as a group's entry; raises ``InvalidInputError``."""
        return group_entry(
            self.repository,
            self.tags or (),
            self.digest,
            self.labels,
            self.type,
            deleted=self.deleted,
            priority=self.priority,
        )

    @classmethod
    def of(cls, entry: GroupEntry) -> "ArtifactBody":
        """Build it from a group's entry."""
        labels = entry.labels
        return cls(
            repository=entry.repository,
            tags=list(entry.tags),
            labels=dict(labels) if isinstance(labels, dict) else None if labels is None else list(labels),
            type=entry.type,
            digest=str(entry.digest) if entry.digest else "",
            deleted=entry.deleted,
            priority=entry.priority,
        )


class GroupSync(Body):
    """A whole group, to be created or to replace the one that is there."""

    group: Text
    registry: Text = ""
    """Empty: the centre's source."""
    artifacts: _Artifacts | None = None
    expires_after_seconds: int | None = None
    publish: Publish | None = None
    """``together``: tags move once every image of the group is at the site; ``each``: image by image."""
    platforms: _Platforms | None = None
    """``os/architecture[/variant]``: children of indexes to bring; empty: all, unless the site chooses."""
    signature_keys: _Keys | None = None
    """Public keys of cosign (PEM), one of which must have signed each image; empty: nobody must."""

    def change_policy(self, policy: GroupPolicy) -> GroupPolicy:
        """Return a policy with what this body says; raises ``InvalidInputError``."""
        return changed_policy(
            policy, publish=self.publish, platforms=self.platforms, signature_keys=self.signature_keys
        )


class GroupCreation(Body):
    """A group that names nothing yet."""

    group: Text
    registry: Text = ""
    """Empty: the centre's source."""


class GroupPatch(Body):
    """What of a group shall change; what is left out, or null, stays, but for the expiry: null is for ever."""

    is_staged: bool | None = None
    config_name: Text | None = None
    """Of a config that is there; empty: none."""
    expires_after_seconds: int | None = None

    def change(self) -> GroupChange:
        """Return it as the use case takes it."""
        has_expiry = "expires_after_seconds" in self.model_fields_set
        return GroupChange(self.is_staged, self.config_name, has_expiry, self.expires_after_seconds)


class GroupBody(Body):
    """A group."""

    id: int = Field(serialization_alias="ID")
    name: str = Field(serialization_alias="GroupName")
    registry: str = Field(serialization_alias="RegistryUrl")
    projects: list[str] = Field(serialization_alias="Projects")
    created_at: datetime = Field(serialization_alias="CreatedAt")
    updated_at: datetime = Field(serialization_alias="UpdatedAt")
    expires_after_seconds: int | None
    publish: Publish
    platforms: list[str]
    signature_keys: list[str]
    config_name: str
    """Of the config that its satellites get from it; empty: none."""
    is_staged: bool
    """Whether its generations reach sites by rollouts only."""
    released_generation: int | None
    """Staged: what satellites without a pin follow; null: nothing yet."""
    unresolved_count: int
    """How many artifacts the source did not have when the group was last to be published."""

    @classmethod
    def of(cls, group: Group, projects: list[str], unresolved_count: int) -> "GroupBody":
        """Build it from a row, the projects that its artifacts are in, and how many of these the source lacks."""
        policy = read_policy(group.policy)
        return cls(
            id=group.id,
            name=group.name,
            registry=group.source_registry,
            projects=projects,
            created_at=group.created_at,
            updated_at=group.updated_at,
            expires_after_seconds=group.expires_after_seconds,
            publish=policy.publish,
            platforms=[str(platform) for platform in policy.platforms],
            signature_keys=list(policy.signature_keys),
            config_name=group.config_name,
            is_staged=group.is_staged,
            released_generation=group.released_generation,
            unresolved_count=unresolved_count,
        )


class GroupDetail(GroupBody):
    """A group with its artifacts, and what was last published of it."""

    artifacts: list[ArtifactBody] = Field(default_factory=list)
    """Listed by hand."""
    selectors: list[SelectorBody] = Field(default_factory=list)
    members: list[ArtifactBody] = Field(default_factory=list)
    """Pushed by its replication rule."""
    generation: int = 0
    digest: str | None = None
    unresolved: list[UnresolvedBody] = Field(default_factory=list)
    """Empty once every artifact is found; a group is published without those that never were."""


class Membership(Body):
    """A satellite and a group."""

    satellite: Text
    group: Text
