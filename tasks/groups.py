"""Tasks on groups at the centre: which there are, and publishing them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from prefect.logging import get_run_logger

from harbor_satellite.errors import ConflictError, NotFoundError, RemoteError
from harbor_satellite.ground_control.groups import group_states
from harbor_satellite.ground_control.groups.publishing import (
    drop_generation,
    is_group_lost,
    look_up_group,
    publish_group,
    shown_generation,
)
from harbor_satellite.ground_control.groups.unresolved import record_unresolved
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.state.names import (
    group_state_repository,
)
from tasks.policy import remote_task

if TYPE_CHECKING:
    from harbor_satellite.ground_control.groups.group_states import GroupSpec
    from harbor_satellite.ground_control.groups.publishing import ResolvedGroup
    from harbor_satellite.state.artifact import StateArtifact
    from tasks.centre import Centre

_TIMEOUT_SECONDS = 600.0
_ATTEMPTS = 3  # to publish a group that changes meanwhile


@remote_task(name="list-groups", timeout_seconds=_TIMEOUT_SECONDS)
def list_groups(centre: Centre) -> tuple[str, ...]:
    """Return the names of all groups."""
    with centre.reading() as session:
        return tuple(group_states.list_group_names(session))


@remote_task(name="publish-group", run_name="publish {group}", timeout_seconds=_TIMEOUT_SECONDS)
def publish_group_state(centre: Centre, group: str) -> tuple[str, ...]:
    """Resolve a group at the source and publish its next generation if anything changed.

    Returns:
        What could not be resolved, each with its reason.
    """
    logger = get_run_logger()
    try:
        spec, resolved, state = _publish_patiently(centre, group)
    except NotFoundError:
        logger.info("group is gone group=%s", group)
        return ()
    generation = state.generation if state else spec.generation
    logger.info("%s group=%s generation=%d", "published" if state else "unchanged", group, generation)
    for problem in resolved.unresolved:
        logger.warning("not resolved reference=%s reason=%s", problem.reference, problem.reason)
    return tuple(f"{problem.reference}: {problem.reason}" for problem in resolved.unresolved)


def _publish_patiently(centre: Centre, group: str) -> tuple[GroupSpec, ResolvedGroup, StateArtifact | None]:
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(ConflictError):  # another publisher, or a change: what was resolved is out of date
            return _publish(centre, group)
    return _publish(centre, group)


def _publish(centre: Centre, group: str) -> tuple[GroupSpec, ResolvedGroup, StateArtifact | None]:
    with centre.reading() as session:
        spec = group_states.group_spec(session, group)
    with centre.source_of(spec.registry) as source:
        harbor = centre.source.harbor if centre.is_own(spec.registry) else None
        resolved = look_up_group(source, harbor, spec)
    with centre.sessions.begin() as session:  # of its own: it is known even if nothing can be published
        record_unresolved(session, spec, resolved.unresolved, utc_now())
    registry = centre.public_url if centre.is_own(spec.registry) else spec.registry
    with centre.source_of("") as own:
        is_lost = is_group_lost(own, spec)
        shown = shown_generation(own, spec) if is_lost else 0
        with centre.sessions.begin() as session:
            state = publish_group(
                session, centre.pusher, spec, resolved, registry=registry, now=utc_now(), is_lost=is_lost, shown=shown
            )
        if state is None and centre.signer and spec.published_digest:
            # Published before there was a key, or its signature is lost.
            centre.signer.ensure_signed(group_state_repository(spec.name), spec.published_digest)
        if state:
            with contextlib.suppress(RemoteError), centre.reading() as session:  # a tag too many harms nobody
                drop_generation(session, own, group, state.generation)
    return spec, resolved, state
