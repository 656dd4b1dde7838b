"""Migrations and engines, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from harbor_satellite.errors import InvalidInputError, StorageError
from harbor_satellite.ground_control.database import (
    alembic_config,
    database_url,
    is_reachable,
    make_engine,
    make_session_factory,
    migrate,
    reading,
)
from harbor_satellite.ground_control.models import Base, Group, GroupArtifact, UnresolvedArtifact, User

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.ground_control.database import SessionFactory


def test_migrated_schema_is_that_of_the_models(empty_database_url: str) -> None:
    migrate(empty_database_url)

    engine = make_engine(empty_database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        difference = compare_metadata(context, Base.metadata)
        names = {
            item["name"] for table in Base.metadata.tables for item in inspect(connection).get_unique_constraints(table)
        }
    engine.dispose()
    assert difference == []
    assert {"uq_users_username", "uq_registration_tokens_token_hash", "uq_credentials_username"} <= names


def test_migrate_five_replicas_at_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(migrate, [empty_database_url] * 5))

    migrate(empty_database_url)


def test_migrate_down_and_up_again(empty_database_url: str) -> None:
    migrate(empty_database_url)
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    with engine.connect() as connection:
        left = inspect(connection).get_table_names()
    engine.dispose()

    assert left == ["alembic_version"]
    migrate(empty_database_url)


def test_migrate_policy_goes_on_beside_the_previous_release(empty_database_url: str) -> None:
    engine = make_engine(empty_database_url)
    values = "'r', 0, '2026-01-01', '2026-01-01'"
    group = f"INSERT INTO groups (name, registry, generation_floor, created_at, updated_at) VALUES ('%s', {values})"  # noqa: S608 - ours
    entry = (
        "INSERT INTO group_artifacts (group_id, repository, tags, type, deleted) "
        "SELECT id, 'acme/app', '[]', 'IMAGE', false FROM groups"
    )
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(text(group % "before"))
        connection.execute(text(entry))

    migrate(empty_database_url)
    with engine.begin() as connection:  # the previous release writes on
        connection.execute(text(group % "after"))
        connection.execute(text(entry))

    with make_session_factory(engine)() as session:
        policies = session.scalars(select(Group.policy)).all()
        priorities = set(session.scalars(select(GroupArtifact.priority)))
    engine.dispose()
    assert (policies, priorities) == ([None, None], {0})


def test_migrate_unresolved_goes_on_beside_the_previous_release(empty_database_url: str) -> None:
    engine = make_engine(empty_database_url)
    group = (
        "INSERT INTO groups (name, registry, generation_floor, created_at, updated_at) "
        "VALUES ('%s', 'r', 0, '2026-01-01', '2026-01-01')"
    )
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0002")
        connection.execute(text(group % "before"))

    migrate(empty_database_url)
    factory, now = make_session_factory(engine), datetime.now(UTC)
    with factory.begin() as session:
        for row in session.scalars(select(Group)).all():
            session.add(UnresolvedArtifact(group_id=row.id, reference="acme/app:v1", reason="gone", since=now))
    with engine.begin() as connection:  # the previous release writes on
        connection.execute(text(group % "after"))
        connection.execute(text("DELETE FROM groups WHERE name = 'before'"))

    with factory() as session:
        left = (session.scalars(select(Group.name)).all(), session.scalars(select(UnresolvedArtifact)).all())
    engine.dispose()
    assert left == (["after"], [])


def test_migrate_unreachable_names_the_place_without_the_password() -> None:
    with pytest.raises(StorageError) as caught:
        migrate("postgresql://hs:very-secret@127.0.0.1:1/nothing")

    assert "127.0.0.1:1" in str(caught.value)
    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/db", "postgresql+asyncpg://host/db"])
def test_database_url_unsupported_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        database_url(url)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://host/db", "postgresql+psycopg"),
        ("postgres://host/db", "postgresql+psycopg"),
        ("postgresql+psycopg://host/db", "postgresql+psycopg"),
        ("sqlite:///x.db", "sqlite+pysqlite"),
    ],
)
def test_database_url_chooses_the_driver(url: str, driver: str) -> None:
    assert database_url(url).drivername == driver


def group_row(moment: datetime) -> Group:
    return Group(name="g", source_registry="r", generation_floor=0, created_at=moment, updated_at=moment)


def test_times_come_back_in_utc(session_factory: SessionFactory) -> None:
    moment = datetime(2026, 11, 22, 20, 15, tzinfo=timezone(timedelta(hours=5)))
    with session_factory.begin() as session:
        session.add(group_row(moment))

    with session_factory() as session:
        created_at = session.scalars(select(Group.created_at)).one()

    assert (created_at, created_at.tzinfo) == (moment, UTC)


def test_time_without_zone_is_refused(session_factory: SessionFactory) -> None:
    naive = datetime(2026, 11, 22)  # noqa: DTZ001 - the point
    with pytest.raises(StatementError), session_factory.begin() as session:
        session.add(group_row(naive))


def test_rules_are_held_by_the_database(session_factory: SessionFactory) -> None:
    now = datetime.now(UTC)
    with pytest.raises(IntegrityError), session_factory.begin() as session:
        session.add(User(username="x", password_hash="", role="root", created_at=now, updated_at=now))


def test_sqlite_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path / 'gc.db'}")
    engine = make_engine(f"sqlite:///{tmp_path / 'gc.db'}")
    factory = make_session_factory(engine)

    with factory.begin() as writer:
        writer.execute(text("DELETE FROM groups"))
        with reading(factory) as reader:
            assert reader.scalar(text("SELECT count(*) FROM groups")) == 0
        assert is_reachable(factory)
    engine.dispose()


def test_unreachable_database_is_said_to_be(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'no' / 'such' / 'gc.db'}")

    assert is_reachable(make_session_factory(engine)) is False
    engine.dispose()
