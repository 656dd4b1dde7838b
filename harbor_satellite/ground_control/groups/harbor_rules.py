"""Endpoint, replication rule and webhook at Harbor, made and taken away for Ground Control. No database.

Harbor asks an endpoint as soon as it is named: its credential must be committed before.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError
from harbor_satellite.harbor import replication

if TYPE_CHECKING:
    from pydantic import SecretStr

    from harbor_satellite.harbor.client import HarborClient

logger = logging.getLogger(__name__)

_LABELLED_CRON: Final = "0 */10 * * * *"  # seconds first; a label starts nothing at Harbor
_FILTER_LONGEST: Final = 1024  # characters


@dataclass(frozen=True, slots=True)
class RuleFilter:
    """What a rule at Harbor shall send."""

    name_filter: str
    """Glob over ``project/repository``."""
    tag_filter: str = ""
    """Glob over tags; empty: all."""
    label: str = ""
    """A label that an artifact must have; then the rule runs every ten minutes, not by events."""
    is_insecure: bool = False
    """Whether Harbor takes any certificate of this service."""


@dataclass(frozen=True, slots=True)
class MadeRule:
    """What was made at Harbor."""

    registry_id: int
    policy_id: int


def check_reachable(harbor: HarborClient | None, public_url: str) -> HarborClient:
    """Return the Harbor that can be told to call this service.

    Raises:
        InvalidInputError: the source is no Harbor, or nobody said how it reaches this service.
    """
    if harbor is None:
        raise InvalidInputError("in_harbor: the source is no Harbor")
    if not public_url:
        raise InvalidInputError("in_harbor: the service's public URL is not set, so Harbor cannot be told it")
    return harbor


def make_rule(
    harbor: HarborClient, group: str, *, url: str, username: str, secret: SecretStr, wanted: RuleFilter
) -> MadeRule:
    """Make endpoint and rule, or make them right, and send everything that matches now.

    Raises:
        InvalidInputError: there is no filter by name, or one is too long.
        RemoteError: Harbor cannot be reached, refuses, or does not reach this service; call again later.
    """
    if not wanted.name_filter or max(map(len, (wanted.name_filter, wanted.tag_filter, wanted.label))) > _FILTER_LONGEST:
        raise InvalidInputError(f"in_harbor.name_filter: a pattern of 1 to {_FILTER_LONGEST} characters is needed")
    name = f"ground-control-{group}"
    registry_id = replication.ensure_endpoint(
        harbor, name=name, url=url.rstrip("/"), username=username, secret=secret, insecure=wanted.is_insecure
    )
    policy_id = replication.ensure_rule(
        harbor,
        name=name,
        endpoint_id=registry_id,
        namespace=group,
        name_filter=wanted.name_filter,
        tag_filter=wanted.tag_filter,
        label=wanted.label,
        is_event_based=not wanted.label,
        cron=_LABELLED_CRON if wanted.label else "",
    )
    try:
        # Events tell of what changes from now on only.
        replication.run_rule(harbor, policy_id)
    except HarborSatelliteError as error:
        logger.warning("rule not started group=%s reason=%s", group, error)
    return MadeRule(registry_id, policy_id)


def remove_rule(harbor: HarborClient | None, registry_id: int | None, policy_id: int | None) -> None:
    """Take rule and endpoint away, the rule first; those that are gone already are fine.

    Raises:
        RemoteError: Harbor cannot be reached or refuses; call again later.
        InvalidInputError: they were made, but the source is no Harbor (any more).
    """
    if registry_id is None and policy_id is None:
        return
    if harbor is None:
        raise InvalidInputError(
            f"replication rule {policy_id} and endpoint {registry_id} were made at a Harbor, but the source is none; "
            "delete them there, then repeat this with keep_in_harbor"
        )
    if policy_id is not None:
        replication.delete_rule(harbor, policy_id)
    if registry_id is not None:
        replication.delete_endpoint(harbor, registry_id)
