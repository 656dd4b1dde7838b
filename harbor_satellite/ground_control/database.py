"""Engines, sessions and migrations, for PostgreSQL and SQLite alike.

What must not live here: queries about the domain, and where the URL comes from.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from harbor_satellite.errors import InvalidInputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

SessionFactory = sessionmaker[Session]

_READ_ONLY: Final = "harbor_satellite_read_only"
_BUSY_TIMEOUT_SECONDS: Final = 30
_WAL_ATTEMPTS: Final = 200
_WAL_PAUSE_SECONDS: Final = 0.05
_POOL_SIZE: Final = 10  # connections a replica keeps
_POOL_OVERFLOW: Final = 30  # together as many as FastAPI has threads: no handler waits for a connection
_MIGRATION_LOCK: Final = 0x6861_7262_7361_74  # "harbsat": one number for every replica
_LOCK_WAIT: Final = "120s"  # for another replica to finish migrating
_LOCK_TIMEOUT: Final = "10s"  # a migration that waits for a table blocks everybody behind it
_STATEMENT_TIMEOUT: Final = "300s"


def database_url(url: str) -> URL:
    """Read a database URL and choose its driver.

    Args:
        url: ``postgresql://…``, ``postgresql+psycopg://…`` or ``sqlite:///path``.

    Raises:
        InvalidInputError: another database or driver, or not a URL; the message never shows the password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInputError("not a database URL (postgresql://… or sqlite:///path)") from error
    match parsed.drivername:
        case "postgresql" | "postgres" | "postgresql+psycopg":
            return parsed.set(drivername="postgresql+psycopg")
        case "sqlite" | "sqlite+pysqlite":
            return parsed.set(drivername="sqlite+pysqlite")
        case other:
            raise InvalidInputError(f"not a database that is supported: {other!r} (postgresql or sqlite)")


def make_engine(url: str) -> Engine:
    """Build the engine of a database; nothing is connected yet.

    Raises:
        InvalidInputError: see ``database_url``.
    """
    parsed = database_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed)
    return create_engine(
        parsed,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_timeout=10,
        pool_pre_ping=True,
        hide_parameters=True,  # they may be hashes of secrets, and errors reach logs
        connect_args={"connect_timeout": 10, "options": "-c timezone=UTC -c statement_timeout=60s"},
    )


def make_session_factory(engine: Engine) -> SessionFactory:
    """Build the session factory that ``create_app`` and the flows use: ``with factory.begin() as session``."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def reading(factory: SessionFactory) -> Iterator[Session]:
    """Open a session that only reads: on SQLite it does not wait for writers."""
    with factory() as session:
        session.connection(execution_options={_READ_ONLY: True})
        yield session


def commit_soon(session: Session) -> None:
    """Let this transaction's commit not wait for the disk, where nothing is lost by it: only what comes again anyway.

    After a crash of PostgreSQL its last half second may be missing; the database is whole in any case.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET LOCAL synchronous_commit = off"))


def is_reachable(factory: SessionFactory) -> bool:
    """Tell whether the database answers."""
    try:
        with reading(factory) as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True


def migrate(url: str) -> None:
    """Bring the schema to this release's; several replicas may do it at once.

    Raises:
        InvalidInputError: see ``database_url``.
        StorageError: the database cannot be reached, or refuses.
    """
    engine = make_engine(url)
    try:
        with engine.begin() as connection:
            _take_migration_lock(connection)
            command.upgrade(alembic_config(connection), "head")
    except SQLAlchemyError as error:
        place = make_url(url).render_as_string(hide_password=True)
        raise StorageError(f"cannot migrate {place}: {type(error).__name__}") from error
    finally:
        engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Build alembic's configuration in code: scripts from the package, connection from the caller."""
    config = Config()
    scripts = resources.files("harbor_satellite.ground_control") / "migrations"
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _take_migration_lock(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        return  # SQLite: BEGIN IMMEDIATE is the lock
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
    connection.execute(text(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT}'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # Python's driver must not begin transactions on its own: it begins them too late for a safe read-then-write.
        connection.isolation_level = None
        _configure_sqlite(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer that first reads must hold the write lock from its start, or it fails when another wrote in between.
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _configure_sqlite(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_SECONDS * 1000}")
    connection.execute("PRAGMA synchronous = FULL")  # a token that was claimed stays claimed through a power cut
    connection.execute("PRAGMA foreign_keys = ON")
    for attempt in range(_WAL_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            # SQLite does not wait here, though it does everywhere else: two first openers collide.
            if attempt == _WAL_ATTEMPTS - 1:
                raise
            time.sleep(_WAL_PAUSE_SECONDS)
        else:
            return
