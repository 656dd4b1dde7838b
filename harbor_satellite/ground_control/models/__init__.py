"""The tables of Ground Control: columns and what they mean.

What must not live here: queries and rules. Every rule that the database can hold is a named constraint.
"""

from harbor_satellite.ground_control.models.base import DEFAULT_SCHEDULE, Base
from harbor_satellite.ground_control.models.events import OutboxEvent
from harbor_satellite.ground_control.models.groups import (
    Group,
    GroupArtifact,
    GroupRule,
    GroupSelector,
    GroupState,
    RetiredGroup,
    RuleMember,
    UnresolvedArtifact,
    Webhook,
)
from harbor_satellite.ground_control.models.people import ApiToken, AuditEvent, LoginAttempts, User, UserSession
from harbor_satellite.ground_control.models.rollouts import GenerationPin, Rollout, RolloutSatellite
from harbor_satellite.ground_control.models.satellites import (
    AppliedGroupRow,
    Credential,
    RegistrationToken,
    RetiredAccount,
    RetiredSatellite,
    Revision,
    Satellite,
    SatelliteConfig,
    SatelliteGroup,
    SatelliteLabel,
    SatelliteReport,
    SatelliteStateHistory,
)

__all__ = [
    "DEFAULT_SCHEDULE",
    "ApiToken",
    "AppliedGroupRow",
    "AuditEvent",
    "Base",
    "Credential",
    "GenerationPin",
    "Group",
    "GroupArtifact",
    "GroupRule",
    "GroupSelector",
    "GroupState",
    "LoginAttempts",
    "OutboxEvent",
    "RegistrationToken",
    "RetiredAccount",
    "RetiredGroup",
    "RetiredSatellite",
    "Revision",
    "Rollout",
    "RolloutSatellite",
    "RuleMember",
    "Satellite",
    "SatelliteConfig",
    "SatelliteGroup",
    "SatelliteLabel",
    "SatelliteReport",
    "SatelliteStateHistory",
    "UnresolvedArtifact",
    "User",
    "UserSession",
    "Webhook",
]
