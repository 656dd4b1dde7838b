"""Tasks on satellites at the centre: which there are, publishing their states, asking for their replication.

What is published tells its sites itself: with the state, an event is written that makes a run at each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from prefect.logging import get_run_logger

from harbor_satellite.errors import HarborSatelliteError, NotFoundError
from harbor_satellite.ground_control.satellites import credentials, satellite_states
from harbor_satellite.ground_control.satellites.satellite_publishing import (
    due_satellites,
    for_each,
    is_satellite_lost,
    publish_satellite,
)
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.state.names import satellite_name, satellite_state_repository
from tasks.policy import remote_task
from tasks.provision import find_ungranted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from harbor_satellite.ground_control.groups.signing import Pusher
    from harbor_satellite.ground_control.satellites.satellite_states import SatelliteDeployment
    from harbor_satellite.registry.client import HttpRegistry
    from tasks.centre import Centre

_TIMEOUT_SECONDS = 600.0
_FLEET_TIMEOUT_SECONDS = 3600.0  # signing takes a second for each satellite
_LOOKED_AT_SINGLY = 20  # satellites; for more, one look at all permissions costs less
_T = TypeVar("_T")


@remote_task(name="list-satellites", timeout_seconds=_TIMEOUT_SECONDS)
def list_satellites(centre: Centre, group: str | None = None) -> tuple[SatelliteDeployment, ...]:
    """Return every satellite, or those of one group, with what Prefect must hold for it; a group may be gone."""
    with centre.reading() as session:
        try:
            return satellite_states.satellite_deployments(session, group)
        except NotFoundError:
            get_run_logger().info("group is gone group=%s", group)
            return ()


@remote_task(name="publish-satellites", timeout_seconds=_FLEET_TIMEOUT_SECONDS)
def publish_satellite_states(
    centre: Centre, satellites: tuple[SatelliteDeployment, ...], *, is_thorough: bool = False
) -> tuple[str, ...]:
    """Push the state of every satellite whose state changes, after its credential may read what it names.

    Args:
        centre: the run's hold on the centre.
        satellites: those to look at; one query tells which of them change.
        is_thorough: also ask the source for each, push again what it has lost, grant what came later, and sign what
            is not signed.

    Returns:
        The satellites whose state was pushed.
    """
    digests = {str(satellite.name): satellite.state_digest for satellite in satellites}
    with centre.reading() as session:
        due = due_satellites(session, digests.keys(), centre.public_url)
    pusher = centre.pusher
    ungranted = _ungranted(centre, digests.keys() if is_thorough else due)
    served = _serve(centre, due, lambda name: _publish(centre, pusher, name, ungranted))
    moved = [name for name, is_moved in served if is_moved]
    if is_thorough:
        rest = sorted(digests.keys() - set(due))
        with centre.source_of("") as own:
            healed = _serve(centre, rest, lambda name: _heal(centre, own, pusher, name, digests[name], ungranted))
        moved += [name for name, is_moved in healed if is_moved]
    for name in moved:
        get_run_logger().info("published satellite state satellite=%s", name)
    return tuple(sorted(moved))


def _serve(centre: Centre, names: Sequence[str], serve: Callable[[str], _T]) -> list[tuple[str, _T]]:
    """Serve satellites, a few at once; what goes wrong with one is a problem of the run, and of no other satellite."""
    logger, served = get_run_logger(), []
    for name, result in for_each(names, serve, is_one_by_one=_is_one_by_one(centre)):
        if isinstance(result, NotFoundError):
            logger.info("satellite is gone satellite=%s", name)
        elif isinstance(result, HarborSatelliteError):
            logger.error("state not published satellite=%s reason=%s", name, result)
            centre.problems.append(f"state of satellite {name}: {result}")
        else:
            served.append((name, result))
    return served


def _is_one_by_one(centre: Centre) -> bool:
    # SQLite has one writer: the others would hold a thread each, and Ground Control's requests up.
    return centre.settings.database().startswith("sqlite")


def _ungranted(centre: Centre, satellites: Collection[str]) -> frozenset[str]:
    """Return which of these satellites need other permissions: of many, those that one look at the rows tells."""
    if len(satellites) <= _LOOKED_AT_SINGLY:
        return frozenset(satellites)
    try:
        return frozenset(find_ungranted(centre))
    except HarborSatelliteError as error:  # then each is asked for by itself, and says by itself what is wrong
        get_run_logger().warning("permissions not compared reason=%s", error)
        return frozenset(satellites)


def _publish(
    centre: Centre, pusher: Pusher, satellite: str, ungranted: Collection[str], *, is_lost: bool = False
) -> bool:
    if satellite in ungranted:
        with centre.sessions.begin() as session:
            credentials.grant_projects(session, centre.source, satellite)
    with centre.sessions.begin() as session:
        return publish_satellite(session, pusher, satellite, registry=centre.public_url, now=utc_now(), is_lost=is_lost)


def _heal(  # noqa: PLR0917 - read from left to right it is who, where and what
    centre: Centre, own: HttpRegistry, pusher: Pusher, satellite: str, published: str | None, ungranted: Collection[str]
) -> bool:
    if is_satellite_lost(own, satellite, published):
        return _publish(centre, pusher, satellite, ungranted, is_lost=True)
    if satellite in ungranted:
        with centre.sessions.begin() as session:
            credentials.grant_projects(session, centre.source, satellite)
    if centre.signer and published:
        centre.signer.ensure_signed(satellite_state_repository(satellite_name(satellite)), Digest.parse(published))
    return False


@remote_task(name="ask-for-replication", timeout_seconds=_TIMEOUT_SECONDS)
def ask_for_replication(centre: Centre, satellites: tuple[str, ...]) -> int:
    """Ask for a run at satellites that have a deployment now; return how many were not going to be asked anyway.

    One whose state moves is asked by what publishes it; see ``satellite_states.ask_for_runs``.
    """
    if not satellites:
        return 0
    with centre.sessions.begin() as session:
        return satellite_states.ask_for_runs(session, satellites, utc_now())
