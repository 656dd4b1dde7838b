"""Credentials of replication rules, with which Harbor pushes to a group's sink. Use cases over a ``Session``.

Making endpoint and rule at Harbor is apart from it (``harbor_rules.py``): while Harbor is asked, it asks the sink.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select

from harbor_satellite.errors import AuthenticationError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups.groups import show_group
from harbor_satellite.ground_control.groups.rule_members import count_members
from harbor_satellite.ground_control.models import Group, GroupRule, RuleMember
from harbor_satellite.ground_control.tokens import hash_token, mint_token, verify_token

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

_USERNAME_LONGEST: Final = 128  # characters
_PUSH_NOTED_EVERY: Final = timedelta(minutes=1)  # not every push is written: they come in parallel


@dataclass(frozen=True, slots=True)
class RuleIdentity:
    """Which group's rule is calling."""

    group_id: int
    group: str
    last_push_at: datetime | None


@dataclass(frozen=True, slots=True)
class RuleView:
    """A group's rule, as far as it may be shown."""

    group: str
    username: str
    created_at: datetime
    last_push_at: datetime | None
    member_count: int
    harbor_registry_id: int | None
    """Of the endpoint at Harbor, if Ground Control made it."""
    harbor_policy_id: int | None
    """Of the rule at Harbor, if Ground Control made it."""


def authenticate_rule(session: Session, username: str, secret: SecretStr) -> RuleIdentity:
    """Tell whose rule a username and secret belong to.

    Raises:
        AuthenticationError: nobody's; the same message whatever is wrong.
    """
    row = None
    if len(username) <= _USERNAME_LONGEST and username.isprintable():
        query = select(GroupRule, Group.name).join(Group).where(GroupRule.username == username)
        row = session.execute(query).one_or_none()
    if row is None or not verify_token(secret, row[0].secret_hash):
        raise AuthenticationError("invalid credentials of a rule")
    return RuleIdentity(row[0].group_id, row[1], row[0].last_push_at)


def issue_secret(session: Session, group: str, now: datetime) -> tuple[SecretStr, str | None]:
    """Make the credential of a group's rule, or give it a new secret; members stay.

    Returns:
        The secret, shown this once, and the hash of the one that it replaces; None if there was no credential.

    Raises:
        NotFoundError: there is no such group.
    """
    found = show_group(session, group)
    secret = mint_token()
    row = session.get(GroupRule, found.id, with_for_update=True)
    replaced = row.secret_hash if row else None
    if row is None:
        row = GroupRule(group_id=found.id, username=found.name, created_at=now)
        session.add(row)
    row.secret_hash = hash_token(secret)
    logger.info("credential of a rule issued group=%s", group)
    return secret, replaced


def take_secret_back(session: Session, group: str, issued: SecretStr, replaced: str | None) -> None:
    """Undo ``issue_secret``, unless another has been issued since."""
    row = session.get(GroupRule, show_group(session, group).id, with_for_update=True)
    if row is None or not verify_token(issued, row.secret_hash):
        return
    if replaced is None:
        session.delete(row)
    else:
        row.secret_hash = replaced


def note_harbor_ids(session: Session, group: str, registry_id: int, policy_id: int) -> None:
    """Keep what was made at Harbor for a group's rule; raises ``NotFoundError``."""
    row = _row(session, group)
    row.harbor_registry_id, row.harbor_policy_id = registry_id, policy_id


def note_push(session: Session, caller: RuleIdentity, now: datetime) -> None:
    """Note that a rule pushed, to the minute."""
    if caller.last_push_at is None or now - caller.last_push_at >= _PUSH_NOTED_EVERY:
        row = session.get(GroupRule, caller.group_id)
        if row is not None:
            row.last_push_at = now


def show_rule(session: Session, group: str) -> RuleView:
    """Return a group's rule.

    Raises:
        NotFoundError: there is no such group, or it has no rule.
    """
    row = _row(session, group)
    return RuleView(
        group=group,
        username=row.username,
        created_at=row.created_at,
        last_push_at=row.last_push_at,
        member_count=count_members(session, row.group_id),
        harbor_registry_id=row.harbor_registry_id,
        harbor_policy_id=row.harbor_policy_id,
    )


def made_at_harbor(session: Session, group: str) -> tuple[int | None, int | None] | None:
    """Return the ids of endpoint and rule that were made at Harbor for a group; None if it has no rule.

    Raises:
        NotFoundError: there is no such group.
    """
    row = session.get(GroupRule, show_group(session, group).id)
    return None if row is None else (row.harbor_registry_id, row.harbor_policy_id)


def delete_rule(session: Session, group: str, now: datetime) -> int:
    """Delete a group's rule with its members, and tell Prefect.

    Returns:
        How many members the group loses.

    Raises:
        NotFoundError: there is no such group, or it has no rule.
    """
    row = _row(session, group)
    count = count_members(session, row.group_id)
    session.execute(delete(RuleMember).where(RuleMember.group_id == row.group_id))
    session.delete(row)
    outbox.enqueue_group_changed(session, group, now)
    logger.info("rule deleted group=%s members=%d", group, count)
    return count


def _row(session: Session, group: str) -> GroupRule:
    row = session.get(GroupRule, show_group(session, group).id, with_for_update=True)
    if row is None:
        raise NotFoundError(f"group {group!r} has no rule")
    return row
