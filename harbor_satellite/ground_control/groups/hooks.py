"""Webhooks of Harbor: hints that something in a project changed. Parsing is pure; the rest is over a ``Session``.

Harbor sends no event for a tag that its API adds or takes, names one tag of several, repeats and reorders. So an event
only makes the groups that it may touch be published soon; what they hold is looked up then, and on a cron.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import or_, select, union

from harbor_satellite.errors import AuthenticationError, InvalidInputError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups.globs import parse_glob
from harbor_satellite.ground_control.models import Group, GroupArtifact, GroupSelector, RuleMember, Webhook
from harbor_satellite.ground_control.tokens import hash_token, mint_token, verify_token
from harbor_satellite.oci.reference import check_repository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pydantic import SecretStr
    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

EVENT_MAX_BYTES: Final = 1024 * 1024
"""bytes; an event of Harbor's has less than two thousand."""
_TELLING: Final = frozenset(
    {
        "PUSH_ARTIFACT",
        "DELETE_ARTIFACT",
        "REPLICATION",
        "TAG_RETENTION",
        "harbor.artifact.pushed",
        "harbor.artifact.deleted",
        "harbor.replication.status.changed",
        "harbor.tag_retention.finished",
    }
)  # not pulls: publishing a group pulls its manifests, and would go on for ever


@dataclass(frozen=True, slots=True)
class HookEvent:
    """What an event says, as far as it matters."""

    type: str
    """Harbor's own word, of either format."""
    repository: str
    """With its project in front; empty: the whole project may have changed."""

    @property
    def is_telling(self) -> bool:
        """Whether it may have changed what a group holds."""
        return self.type in _TELLING


@dataclass(frozen=True, slots=True)
class HookView:
    """A project's webhook, as far as it may be shown."""

    project: str
    created_at: datetime
    last_event_at: datetime | None
    harbor_policy_id: int | None

    def address(self, public_url: str) -> str:
        """Return where Harbor sends events; empty if nobody said how it reaches this service."""
        return f"{public_url.rstrip('/')}/webhooks/harbor/{quote(self.project, safe='')}" if public_url else ""


def parse_event(raw: bytes) -> HookEvent:
    """Read an event of either format, Default or CloudEvents; one of an unknown type is an event, too.

    Raises:
        InvalidInputError: it is no event.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("the event is not JSON") from error
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        raise InvalidInputError("the event has no type")
    data = document.get("event_data") or document.get("data")
    repository = data.get("repository") if isinstance(data, dict) else None
    return HookEvent(document["type"], _full_name(repository))


def _full_name(repository: Any) -> str:
    name = repository.get("repo_full_name") if isinstance(repository, dict) else None
    try:
        return check_repository(name) if isinstance(name, str) else ""
    except InvalidInputError:
        return ""


def authenticate_hook(session: Session, project: str, authorization: SecretStr) -> None:
    """Check what a project's webhook brought.

    Raises:
        AuthenticationError: there is no such webhook, or its secret is another; the same message for both.
    """
    row = session.get(Webhook, project) if _is_storable(project) else None
    if not verify_token(authorization, row.secret_hash if row else None):
        raise AuthenticationError("invalid webhook secret")


def take_event(
    session: Session, project: str, event: HookEvent, now: datetime, *, delay_seconds: float
) -> Sequence[str]:
    """Let the groups be published that an event may touch.

    Returns:
        Their names, sorted.
    """
    row = session.get(Webhook, project)
    if row is not None:
        row.last_event_at = now
    # A webhook speaks for its own project, whatever its events say.
    is_own = event.repository.partition("/")[0] in {"", project}
    touched = groups_touched(session, project, event.repository) if event.is_telling and is_own else ()
    outbox.enqueue_groups_changed_soon(session, touched, now, delay_seconds=delay_seconds)
    logger.info("webhook taken project=%s event=%s groups=%d", project, event.type[:64], len(touched))
    return touched


def groups_touched(session: Session, project: str, repository: str = "") -> tuple[str, ...]:
    """Return the groups that may hold something of a repository, or of a whole project; sorted.

    Args:
        session: open.
        project: the project that changed.
        repository: with its project in front; empty: any of them.
    """
    listed, member = GroupArtifact, RuleMember
    if repository:
        named, pushed = listed.repository == repository, member.repository == repository
    else:
        named = or_(listed.repository == project, listed.repository.startswith(f"{project}/", autoescape=True))
        pushed = or_(member.repository == project, member.repository.startswith(f"{project}/", autoescape=True))
    ids = union(
        select(listed.group_id).where(named, listed.deleted.is_(False)),
        select(member.group_id).where(pushed),
    ).subquery()
    found = set(session.scalars(select(Group.name).where(Group.id.in_(select(ids.c[0])))))
    selecting = (
        select(Group.name, GroupSelector.repository)
        .join(Group, Group.id == GroupSelector.group_id)
        .where(GroupSelector.project == project)
        .distinct()
    )
    below = repository.partition("/")[2]
    for group, pattern in session.execute(selecting):
        if group not in found and (not repository or parse_glob(pattern).matches(below)):
            found.add(group)
    return tuple(sorted(found))


def issue_hook_secret(session: Session, project: str, now: datetime) -> tuple[SecretStr, str | None]:
    """Make the secret of a project's webhook, or make it anew.

    Returns:
        The secret, shown this once, and the hash of the one that it replaces; None if there was no webhook.

    Raises:
        InvalidInputError: not a project's name.
    """
    if "/" in check_repository(project):
        raise InvalidInputError(f"a project has no '/': {project[:200]!r}")
    secret = mint_token()
    row = session.get(Webhook, project, with_for_update=True)
    replaced = row.secret_hash if row else None
    if row is None:
        row = Webhook(project=project, created_at=now)
        session.add(row)
    row.secret_hash = hash_token(secret)
    logger.info("webhook secret issued project=%s", project)
    return secret, replaced


def take_hook_secret_back(session: Session, project: str, issued: SecretStr, replaced: str | None) -> None:
    """Undo ``issue_hook_secret``, unless another has been issued since."""
    row = session.get(Webhook, project, with_for_update=True)
    if row is None or not verify_token(issued, row.secret_hash):
        return
    if replaced is None:
        session.delete(row)
    else:
        row.secret_hash = replaced


def note_hook_policy(session: Session, project: str, policy_id: int) -> None:
    """Keep which webhook was made at Harbor; raises ``NotFoundError``."""
    _row(session, project).harbor_policy_id = policy_id


def list_hooks(session: Session) -> tuple[HookView, ...]:
    """Return all webhooks by project."""
    return tuple(_view(row) for row in session.scalars(select(Webhook).order_by(Webhook.project)))


def show_hook(session: Session, project: str) -> HookView:
    """Return a project's webhook; raises ``NotFoundError``."""
    return _view(_row(session, project))


def delete_hook(session: Session, project: str) -> None:
    """Forget a project's webhook: its events are refused from now on; raises ``NotFoundError``."""
    session.delete(_row(session, project))
    logger.info("webhook deleted project=%s", project)


def _row(session: Session, project: str) -> Webhook:
    row = session.get(Webhook, project) if _is_storable(project) else None
    if row is None:
        raise NotFoundError(f"no webhook of project {project[:200]!r}")
    return row


def _view(row: Webhook) -> HookView:
    return HookView(row.project, row.created_at, row.last_event_at, row.harbor_policy_id)


def _is_storable(project: str) -> bool:
    return 0 < len(project) <= 255 and project.isprintable()  # noqa: PLR2004 - of the column
