"""Publishing against real databases: publishers take turns, and nothing out of date is published."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import ConflictError
from harbor_satellite.ground_control import fleet
from harbor_satellite.ground_control.groups import group_entry, sync_group
from harbor_satellite.ground_control.publishing import ResolvedGroup, publish_group
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.artifact import StateEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.fleet import GroupSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESOLVED = ResolvedGroup((StateEntry("acme/app", ("v1",), Digest.of(b"one"), referrers=()),), ())


class Pushes:
    """Takes pushes instead of a registry."""

    def __init__(self) -> None:
        self.tags: list[tuple[str, ...]] = []

    def push(self, repository: str, tags: Iterable[str], raw: bytes) -> Digest:
        self.tags.append(tuple(tags))
        return Digest.of(raw)


def make_group(factory: SessionFactory, tag: str = "v1") -> GroupSpec:
    with factory.begin() as session:
        entries = [group_entry("acme/app", [tag], "")]
        sync_group(session, "shops", registry="http://source.test", entries=entries, now=NOW)
    with factory.begin() as session:
        return fleet.group_spec(session, "shops")


def publish(factory: SessionFactory, pushes: Pushes, spec: GroupSpec, *, is_lost: bool = False) -> int | None:
    with factory.begin() as session:
        state = publish_group(session, pushes, spec, RESOLVED, registry="http://source.test", now=NOW, is_lost=is_lost)  # type: ignore[arg-type]
    return state.generation if state else None


def test_publish_group_changed_while_it_was_resolved_is_not_published(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    read_before = make_group(session_factory)
    make_group(session_factory, tag="v2")

    with pytest.raises(ConflictError, match="changed while it was resolved"):
        publish(session_factory, pushes, read_before)

    assert pushes.tags == []


def test_publish_group_second_publisher_of_the_same_reading_conflicts(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    spec = make_group(session_factory)
    publish(session_factory, pushes, spec)

    with pytest.raises(ConflictError):
        publish(session_factory, pushes, spec)

    assert pushes.tags == [("1", "latest")]


def test_publish_group_same_content_is_published_again_only_if_lost(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    publish(session_factory, pushes, make_group(session_factory))
    with session_factory.begin() as session:
        spec = fleet.group_spec(session, "shops")

    unchanged = publish(session_factory, pushes, replace(spec))
    lost = publish(session_factory, pushes, spec, is_lost=True)

    assert (unchanged, lost) == (None, 2)
