"""HTTP bodies of configs: the original's keys (Go's field names in answers), then ours."""

from datetime import datetime
from typing import Any

from pydantic import Field

from harbor_satellite.ground_control.api.schemas import Body, Text
from harbor_satellite.ground_control.models import SatelliteConfig


class ConfigCreation(Body):
    """A config to be."""

    config_name: Text
    registry: Text = ""
    """The original's; carried, not interpreted."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Our fields, and beside them the original's ``state_config``, ``app_config`` and ``zot_config``. No secrets."""


class ConfigBody(Body):
    """A config, and who has it."""

    id: int = Field(serialization_alias="ID")
    name: str = Field(serialization_alias="ConfigName")
    registry: str = Field(serialization_alias="RegistryUrl")
    content: dict[str, Any] = Field(serialization_alias="Config")
    created_at: datetime = Field(serialization_alias="CreatedAt")
    updated_at: datetime = Field(serialization_alias="UpdatedAt")
    satellite_count: int
    """Satellites that have it as their own."""
    group_count: int
    """Groups whose satellites have it."""

    @classmethod
    def of(cls, config: SatelliteConfig, users: tuple[int, int]) -> "ConfigBody":
        """Build it from a row and the numbers of satellites and groups that have it."""
        return cls(
            id=config.id,
            name=config.name,
            registry=config.source_registry,
            content=config.content,
            created_at=config.created_at,
            updated_at=config.updated_at,
            satellite_count=users[0],
            group_count=users[1],
        )


class SatelliteAssignment(Body):
    """A satellite and its config; an empty name takes the config away."""

    satellite: Text
    config_name: Text


class GroupAssignment(Body):
    """A group and the config of its satellites; an empty name takes the config away."""

    group: Text
    config_name: Text
