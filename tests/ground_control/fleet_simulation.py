"""A fleet in rows: groups with generations, satellites that report, and the centre's work between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from harbor_satellite.ground_control.groups import group_states, groups
from harbor_satellite.ground_control.models import AppliedGroupRow, Group, GroupState, Satellite, SatelliteGroup
from harbor_satellite.ground_control.satellites import satellite_publishing
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.artifact import StateArtifact, StateEntry, state_artifact_json
from harbor_satellite.state.names import group_name
from harbor_satellite.state.satellite_state import parse_satellite_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.state.satellite_state import SatelliteState

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)
REGISTRY = "http://source.test:5000"
MEBIBYTE = 1024 * 1024


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


@dataclass
class Pushes:
    """Takes pushes instead of a registry, and keeps what was pushed last."""

    states: dict[str, SatelliteState] = field(default_factory=dict)
    count: int = 0
    is_down: Callable[[str], bool] = lambda _: False

    def push(self, repository: str, tags: Iterable[str], raw: bytes) -> Digest:
        del tags
        self.count += 1
        self.states[repository.split("/")[2]] = parse_satellite_state(raw, None, repository)
        return Digest.of(raw)


@dataclass
class Fleet:
    """One group, ``shop``, its satellites, and a clock."""

    factory: SessionFactory
    now: datetime = NOW
    pushes: Pushes = field(default_factory=Pushes)

    def add_group(self, name: str = "shop", *, is_staged: bool = False) -> None:
        with self.factory.begin() as session:
            groups.sync_group(
                session, name, registry=REGISTRY, entries=[groups.group_entry("acme/app", ["v1"], "")], now=self.now
            )
            session.execute(update(Group).where(Group.name == name).values(is_staged=is_staged))

    def publish(self, generation: int, group: str = "shop", size: int | None = MEBIBYTE) -> None:
        """Record a generation; its content differs from every other's in one artifact, and has one in common."""
        entries = tuple(
            StateEntry("acme/app", (tag,), digest(content), size=size)
            for tag, content in (("base", "base"), ("v1", f"{group}-{generation}"))
        )
        state = StateArtifact(group_name(group), REGISTRY, entries, generation)
        raw = state_artifact_json(state)
        with self.factory.begin() as session:
            group_states.record_group_state(session, group, generation, digest(raw.decode()), raw, self.now)

    def add_satellites(self, count: int, *names: str, is_fit: bool = True) -> list[str]:
        """Make satellites that follow groups; fit ones have reported just now and are in step."""
        with self.factory.begin() as session:
            first = len(session.scalars(select(Satellite.id)).all())
            made = [f"edge-{number:05}" for number in range(first, first + count)]
            session.execute(
                insert(Satellite),
                [
                    {
                        "name": name,
                        "schedule": "*/5 * * * *",
                        "config_name": "",
                        "created_at": self.now,
                        "updated_at": self.now,
                        "lifecycle": "active" if is_fit else "stale",
                        "last_seen": self.now if is_fit else self.now - timedelta(days=9),
                        "report_interval_seconds": 60,
                    }
                    for name in made
                ],
            )
            for group in names or ("shop",):
                group_id = groups.show_group(session, group).id
                ids = session.scalars(select(Satellite.id).where(Satellite.name.in_(made))).all()
                rows = [{"satellite_id": satellite_id, "group_id": group_id} for satellite_id in ids]
                session.execute(insert(SatelliteGroup), rows)
        return made

    def publish_satellites(self) -> tuple[str, ...]:
        """Do what the flows do after every change of pins."""
        with self.factory() as session:
            names = session.scalars(select(Satellite.name)).all()
            due = satellite_publishing.due_satellites(session, names, REGISTRY)
        for start in range(0, len(due), 20):  # not one by one: SQLite waits for the disk at every commit
            with self.factory.begin() as session:
                for name in due[start : start + 20]:
                    self._publish(session, name)
        return due

    def publish_satellite(self, name: str) -> bool:
        with self.factory.begin() as session:
            return self._publish(session, name)

    def _publish(self, session: Session, name: str) -> bool:
        return satellite_publishing.publish_satellite(session, self.pushes, name, registry=REGISTRY, now=self.now)

    def report(self, names: Iterable[str], *, failures: int = 0) -> None:
        """Let sites take what is published for them, and say so; with failures they only tried."""
        told = [name for name in names if name in self.pushes.states]
        with self.factory.begin() as session:
            query = select(Satellite.id, Satellite.name, Satellite.state_digest).where(Satellite.name.in_(told))
            rows = session.execute(query).all()
            session.execute(delete(AppliedGroupRow).where(AppliedGroupRow.satellite_id.in_([row.id for row in rows])))
            seen = {"last_seen": self.now + timedelta(seconds=1), "failure_count": failures}
            if rows:
                changes = [
                    {"id": row.id, **seen, "applied_digest": None if failures else row.state_digest} for row in rows
                ]
                session.execute(update(Satellite), changes)
            applied = [
                {
                    "satellite_id": row.id,
                    "group_name": str(pin.group),
                    "generation": pin.generation,
                    "digest": str(pin.state.digest),
                    "reported_at": self.now,
                }
                for row in rows
                for pin in self.pushes.states[row.name].groups
            ]
            if applied:
                session.execute(insert(AppliedGroupRow), applied)

    def followed(self, name: str, group: str = "shop") -> int | None:
        """Return the generation that a satellite's published state names."""
        state = self.pushes.states.get(name)
        return next((pin.generation for pin in state.groups if pin.group == group), None) if state else None

    def kept(self, group: str = "shop") -> list[int]:
        with self.factory() as session:
            query = select(GroupState.generation).join(Group, Group.id == GroupState.group_id)
            return sorted(session.scalars(query.where(Group.name == group)))

    def advance(self, **amount: float) -> None:
        self.now += timedelta(**amount)
