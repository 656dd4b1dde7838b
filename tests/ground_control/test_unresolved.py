"""What the source does not have: kept with the group, shown there and at every satellite that follows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from harbor_satellite.errors import ConflictError, NotFoundError
from harbor_satellite.ground_control.groups import group_states
from harbor_satellite.ground_control.groups.groups import delete_group, group_entry, show_group, sync_group
from harbor_satellite.ground_control.groups.publishing import resolve_group
from harbor_satellite.ground_control.groups.unresolved import (
    KEPT_UNRESOLVED,
    Unresolved,
    count_unresolved,
    record_unresolved,
    unresolved_of_group,
)
from harbor_satellite.ground_control.models import UnresolvedArtifact
from harbor_satellite.ground_control.satellites import satellite_states
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.server import create_registry_app
from tests.fixtures_ground_control import serve

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.groups.group_states import GroupSpec
    from harbor_satellite.ground_control.groups.groups import GroupEntry
    from harbor_satellite.ground_control.groups.unresolved import KnownUnresolved
    from tests.fixtures_ground_control import GroundControl

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
STATE = Digest.of(b"state")


def make_group(factory: SessionFactory, *entries: GroupEntry, name: str = "shops") -> GroupSpec:
    with factory.begin() as session:
        sync_group(
            session,
            name,
            registry="http://source.test",
            entries=entries or [group_entry("acme/app", ["v1"], "")],
            now=NOW,
        )
    with factory() as session:
        return group_states.group_spec(session, name)


def record(factory: SessionFactory, spec: GroupSpec, problems: dict[str, str], now: datetime = NOW) -> None:
    with factory.begin() as session:
        record_unresolved(session, spec, [Unresolved(*item) for item in problems.items()], now)


def known(factory: SessionFactory, group: str = "shops") -> tuple[KnownUnresolved, ...]:
    with factory() as session:
        return unresolved_of_group(session, show_group(session, group))


def test_record_unresolved_again_keeps_since_and_takes_the_last_reason(session_factory: SessionFactory) -> None:
    spec = make_group(session_factory)
    record(session_factory, spec, {"acme/b:v1": "no such tag", "acme/a:v1": "refused", "acme/c:v1": "no such tag"})

    record(
        session_factory, spec, {"acme/b:v1": "no such repository", "acme/a:v1": "refused", "acme/d:v1": "new"}, LATER
    )

    assert [(item.reference, item.reason, item.since) for item in known(session_factory)] == [
        ("acme/a:v1", "refused", NOW),
        ("acme/b:v1", "no such repository", NOW),
        ("acme/d:v1", "new", LATER),
    ]


def test_record_unresolved_found_and_lost_again_counts_from_the_second_loss(session_factory: SessionFactory) -> None:
    spec = make_group(session_factory)
    record(session_factory, spec, {"acme/app:v1": "no such tag"})
    record(session_factory, spec, {})
    cleared = known(session_factory)

    record(session_factory, spec, {"acme/app:v1": "no such tag"}, LATER)

    assert cleared == ()
    assert [item.since for item in known(session_factory)] == [LATER]


def test_record_unresolved_of_an_outdated_reading_conflicts_and_leaves_what_is_known(
    session_factory: SessionFactory,
) -> None:
    spec = make_group(session_factory)
    record(session_factory, spec, {"acme/app:v1": "no such tag"})
    make_group(session_factory, group_entry("acme/app", ["v2"], ""))

    with pytest.raises(ConflictError, match="changed while it was resolved"):
        record(session_factory, spec, {})

    assert [item.reference for item in known(session_factory)] == ["acme/app:v1"]


def test_record_unresolved_group_deleted_meanwhile_leaves_nothing(session_factory: SessionFactory) -> None:
    spec = make_group(session_factory)
    record(session_factory, spec, {"acme/app:v1": "no such tag"})
    with session_factory.begin() as session:
        delete_group(session, "shops", NOW)

    with pytest.raises(NotFoundError):
        record(session_factory, spec, {"acme/app:v1": "no such tag"})

    with session_factory() as session:
        assert session.scalar(select(func.count()).select_from(UnresolvedArtifact)) == 0


def test_record_unresolved_more_than_are_kept_keeps_the_first_by_name(session_factory: SessionFactory) -> None:
    spec = make_group(session_factory)

    record(session_factory, spec, {f"acme/app:{number:05}": "gone" for number in reversed(range(KEPT_UNRESOLVED + 5))})

    found = known(session_factory)
    with session_factory() as session:
        group = show_group(session, "shops").id
        counted = count_unresolved(session, [group])
    assert counted == {group: KEPT_UNRESOLVED}
    assert (found[0].reference, found[-1].reference) == ("acme/app:00000", f"acme/app:{KEPT_UNRESOLVED - 1:05}")


@pytest.mark.parametrize("reason", ["nul \0 inside", "half \ud800 a character", "x" * 100_000, ""], ids=repr)
def test_record_unresolved_whatever_the_source_says_is_kept_once(session_factory: SessionFactory, reason: str) -> None:
    spec = make_group(session_factory)

    record(session_factory, spec, {"acme/app:v1": reason})
    record(session_factory, spec, {"acme/app:v1": reason}, LATER)

    (found,) = known(session_factory)
    assert (found.since, found.reason[:4], len(found.reason)) == (NOW, reason[:4], min(len(reason), 2048))


def reasons(source: HttpRegistry, spec: GroupSpec) -> dict[str, str]:
    with source:
        return {item.reference: item.reason for item in resolve_group(source, spec).unresolved}


def test_resolve_group_missing_refused_and_away_each_say_what_it_is(
    tmp_path: Path, session_factory: SessionFactory
) -> None:
    by_digest = f"acme/nope@{Digest.of(b'missing')}"
    entries = group_entry("acme/nope", ["9"], ""), group_entry("acme/nope", [], by_digest.partition("@")[2])
    spec = make_group(session_factory, *entries)

    with LayoutRegistry(tmp_path) as layout:
        with serve(create_registry_app(layout)) as url:
            missing = reasons(HttpRegistry(url), spec)
        with serve(create_registry_app(layout, anonymous_read=False)) as url:
            refused = reasons(HttpRegistry(url), spec)
    away = reasons(HttpRegistry("http://127.0.0.1:1"), spec)

    assert missing.keys() == refused.keys() == away.keys() == {"acme/nope:9", by_digest}
    assert "does not exist" in missing["acme/nope:9"]
    assert "status 404" in missing[by_digest]
    assert all("status 403" in reason for reason in refused.values())
    assert all("127.0.0.1:1" in reason for reason in away.values())


def status(running: GroundControl, satellite: str) -> Any:
    return running.admin.get(f"/api/satellites/{satellite}/status").json()


def test_unresolved_is_shown_at_the_group_and_at_those_who_follow_it(ground_control: GroundControl) -> None:
    for group in ("shops", "tools", "whole"):
        make_group(ground_control.factory, name=group)
    for satellite, groups in {"edge-1": ("tools", "shops", "whole"), "edge-2": ("whole",)}.items():
        auth = ground_control.enroll(satellite, *groups)
        with ground_control.factory.begin() as session:
            satellite_states.record_satellite_state(session, satellite, STATE, NOW)
        ground_control.report(satellite, auth, latest_state_digest=str(STATE))
    for group in ("shops", "tools"):
        with ground_control.factory() as session:
            spec = group_states.group_spec(session, group)
        record(ground_control.factory, spec, {"acme/nope:9": f"not in {group}"})

    shown = ground_control.admin.get("/api/groups/shops").json()
    listed = ground_control.admin.get("/api/groups").json()

    entry = {"reference": "acme/nope:9", "reason": "not in shops", "since": "2026-01-01T00:00:00Z"}
    assert (shown["unresolved"], shown["unresolved_count"]) == ([entry], 1)
    assert {group["GroupName"]: group["unresolved_count"] for group in listed} == {"shops": 1, "tools": 1, "whole": 0}
    assert ground_control.admin.get("/api/groups/whole").json()["unresolved"] == []
    follower = status(ground_control, "edge-1")
    assert follower["unresolved"] == [
        {**entry, "group": "shops"},
        {**entry, "group": "tools", "reason": "not in tools"},
    ]
    assert follower["in_step"] is True
    assert status(ground_control, "edge-2")["unresolved"] == []
