"""The centre publishes: a group of a thousand artifacts, and the states of all satellites that follow a group.

PostgreSQL and the source registry are real, each in its own process; publishing is what the central flows call,
without Prefect around it.
"""

from __future__ import annotations

import os
import resource
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, update

from harbor_satellite.ground_control.database import make_engine, make_session_factory
from harbor_satellite.ground_control.groups import group_states, publishing
from harbor_satellite.ground_control.models import Group, GroupArtifact, GroupState
from harbor_satellite.ground_control.satellites import satellite_publishing
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.state_store import StatePusher
from tests.benchmarks import corpus, fleet_seed, measure
from tests.benchmarks.copiers import OURS
from tests.benchmarks.measure import Row
from tests.benchmarks.table import Verdict
from tests.ground_control.postgres import running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.benchmarks.inside import Result
    from tests.fixtures_registry import RunningRegistry

_ARTIFACTS: Final = 1000
_SATELLITES: Final = 1000  # measured; ten thousand take ten times as long, each satellite being served alike
_GROUP: Final = "artifacts"
_GROUP_ID: Final = fleet_seed.GROUPS + 1
_GROUP_SECONDS: Final = 60.0
_PER_SATELLITE_SECONDS: Final = 0.02  # so ten thousand are reached within 200 s
_UNCHANGED_SECONDS: Final = 5.0  # a look at a thousand satellites that are as they should be


@dataclass
class Used:
    """What a part of the work took."""

    wall: float = 0.0
    cpu: float = 0.0


def workload(source_kind: str, scale: float) -> Result:
    """Publish a group, then the states of a fleet for the first time, after a change, and without one."""
    artifacts, count = (_ARTIFACTS, _SATELLITES) if scale == 1 else (50, 50)
    with running_postgres(is_durable=True) as postgres, measure.registry(source_kind) as running:
        postgres.execute("CREATE DATABASE fleet")
        url = postgres.url("fleet")
        fleet_seed.seed(url, count)
        engine = make_engine(url)
        try:
            factory = make_session_factory(engine)
            group = _publish_group(factory, running, artifacts)
            parts = _publish_satellites(factory, running, count)
        finally:
            engine.dispose()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    taken = {f"group of {artifacts} artifacts": group, **parts}
    told = "; ".join(f"{what} {used.wall:.1f} s, {used.cpu:.1f} s CPU" for what, used in taken.items())
    title = f"fleet-publish — {told}; load average {os.getloadavg()[0]:.1f}"
    total = Used(sum(used.wall for used in taken.values()), sum(used.cpu for used in taken.values()))
    row = Row("fleet-publish", OURS, total.wall, total.cpu, rss, 0, 0)
    verdicts = [Verdict("fleet-publish", "seconds until the group is published", group.wall, _GROUP_SECONDS)]
    for what in ("first", "changed"):
        each = parts[what].wall / count
        verdicts.append(Verdict("fleet-publish", f"{what}: seconds a satellite", each, _PER_SATELLITE_SECONDS))
        print(f"  {what}: {count} satellites measured; 10,000 would take {each * 10_000:.0f} s (extrapolated)")
    verdicts.append(Verdict("fleet-publish", "unchanged: seconds", parts["unchanged"].wall, _UNCHANGED_SECONDS))
    return title, [row], verdicts


def _publish_group(factory: SessionFactory, running: RunningRegistry, count: int) -> Used:
    now = datetime.now(UTC)
    with HttpRegistry(running.url) as source:
        images = corpus.fill_tiny(source, count).images
        with factory.begin() as session:
            times = {"created_at": now, "updated_at": now}
            session.execute(
                insert(Group),
                [{"id": _GROUP_ID, "name": _GROUP, "source_registry": "", "generation_floor": 0, **times}],
            )
            rows = [
                {"group_id": _GROUP_ID, "repository": image.repository, "tags": [image.tag], "digest": None, **_PLAIN}
                for image in images
            ]
            session.execute(insert(GroupArtifact), rows)
        with _measured() as used:
            with factory() as session:
                spec = group_states.group_spec(session, _GROUP)
            resolved = publishing.look_up_group(source, None, spec)
            with factory.begin() as session:
                state = publishing.publish_group(
                    session, _pusher(running), spec, resolved, registry=running.url, now=now
                )
    if state is None or len(state.artifacts) != count:
        raise RuntimeError("the group was not published whole")
    return used


def _publish_satellites(factory: SessionFactory, running: RunningRegistry, count: int) -> dict[str, Used]:
    names = [fleet_seed.satellite_name(number) for number in range(count)]
    parts = {}
    for what, expected in (("first", count), ("changed", count), ("unchanged", 0)):
        if what == "changed":
            with factory.begin() as session:  # group-0 is everybody's
                session.execute(update(GroupState).where(GroupState.group_id == 1).values(digest=_CHANGED))
        with _measured() as used:
            published = _publish_due(factory, _pusher(running), names, running.url)
        if published != expected:
            raise RuntimeError(f"{published} satellite states were published, not {expected}")
        parts[what] = used
    return parts


def _publish_due(factory: SessionFactory, pusher: StatePusher, names: list[str], registry: str) -> int:
    with factory() as session:
        due = satellite_publishing.due_satellites(session, names, registry)

    def publish(name: str) -> bool:
        with factory.begin() as session:
            return satellite_publishing.publish_satellite(
                session, pusher, name, registry=registry, now=datetime.now(UTC)
            )

    return sum(result is True for _, result in satellite_publishing.for_each(due, publish))


def _pusher(running: RunningRegistry) -> StatePusher:
    return StatePusher(running.host, plain_http=True)


@contextmanager
def _measured() -> Iterator[Used]:
    used = Used()
    started, before = time.perf_counter(), time.process_time()
    yield used
    used.wall, used.cpu = time.perf_counter() - started, time.process_time() - before


_CHANGED: Final = str(Digest.of(b"changed"))
_PLAIN: Final = {"type": "", "labels": {}, "deleted": False}
