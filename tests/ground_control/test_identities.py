"""Credentials told from memory: never longer than they are good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, event, update

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control.models import Credential, Satellite
from harbor_satellite.ground_control.satellites.identities import Identities, note_seen
from harbor_satellite.ground_control.satellites.revisions import bump
from tests.ground_control.test_gateway import enroll

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory

SECRET = SecretStr("secret-of-mine")


class Process:
    """One process's memory, with a clock of its own."""

    def __init__(self, factory: SessionFactory, capacity: int = 10) -> None:
        self.now = 100.0
        self.identities = Identities(factory, lambda: self.now, capacity)

    def lets_in(self, name: str = "mine", secret: SecretStr | None = None) -> bool:
        try:
            self.identities.authenticate(f"robot-{name}", secret or SecretStr(f"secret-of-{name}"))
        except AuthenticationError:
            return False
        return True


@pytest.fixture
def process(session_factory: SessionFactory) -> Process:
    with session_factory.begin() as session:
        enroll(session, "mine")
    return Process(session_factory)


def revoke(factory: SessionFactory, *, is_told: bool = True) -> None:
    with factory.begin() as session:
        session.execute(delete(Credential).where(Credential.username == "robot-mine"))
        if is_told:
            bump(session)


def test_known_credential_costs_no_query(process: Process, session_factory: SessionFactory) -> None:
    process.lets_in()
    statements: list[str] = []

    def count(*given: object) -> None:
        statements.append(str(given[2]))

    engine = session_factory.kw["bind"]
    event.listen(engine, "before_cursor_execute", count)
    let_in = [process.lets_in() for _ in range(100)]
    event.remove(engine, "before_cursor_execute", count)

    assert (set(let_in), statements) == ({True}, [])


def test_wrong_secret_of_a_known_credential_is_refused(process: Process) -> None:
    process.lets_in()

    assert not process.lets_in(secret=SecretStr("wrong"))
    assert process.lets_in()


def test_revocation_here_is_effective_at_once(process: Process, session_factory: SessionFactory) -> None:
    process.lets_in()

    revoke(session_factory)

    assert not process.lets_in()
    assert process.identities.recall("robot-mine", SECRET) is None


def test_revocation_elsewhere_is_effective_within_two_seconds(
    process: Process, session_factory: SessionFactory
) -> None:
    process.lets_in()
    event.remove(session_factory, "after_commit", process.identities._after_commit)  # as if in another process
    revoke(session_factory)
    process.now += 1.1

    assert not process.lets_in()


def test_revocation_between_its_two_queries_is_not_missed(process: Process, session_factory: SessionFactory) -> None:
    process.lets_in()
    known = process.identities._known["robot-mine"]
    revoke(session_factory)
    process.identities._known["robot-mine"] = known  # read before the revocation, remembered after it

    assert not process.lets_in()


def test_change_by_hand_is_effective_after_ten_minutes(process: Process, session_factory: SessionFactory) -> None:
    process.lets_in()
    revoke(session_factory, is_told=False)
    process.now += 599
    before = process.lets_in()
    process.now += 2

    assert (before, process.lets_in()) == (True, False)


def test_credential_is_not_remembered_beyond_its_end(session_factory: SessionFactory) -> None:
    moment = datetime.now(UTC)
    clock = iter([moment, moment + timedelta(minutes=4), *[moment + timedelta(minutes=5)] * 9])
    with session_factory.begin() as session:
        enroll(session, "mine")
        session.flush()
        session.execute(update(Credential).values(expires_at=moment + timedelta(minutes=5)))
    process = Process(session_factory)
    process.identities = Identities(session_factory, lambda: process.now, clock=lambda: next(clock))

    let_in = [process.lets_in() for _ in range(3)]

    assert let_in == [True, True, False]


def test_memory_is_bounded(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        for number in range(20):
            enroll(session, f"mine-{number}")
    process = Process(session_factory, capacity=10)

    let_in = [process.lets_in(f"mine-{number}") for number in range(20)]

    assert (set(let_in), len(process.identities._known)) == ({True}, 10)


def test_bump_that_is_rolled_back_changes_nothing(process: Process, session_factory: SessionFactory) -> None:
    process.lets_in()
    with session_factory() as session:
        bump(session)
        session.rollback()

    assert process.identities.recall("robot-mine", SECRET) is not None


def test_signs_of_life_never_go_back(process: Process, session_factory: SessionFactory) -> None:
    now = datetime.now(UTC)
    with session_factory.begin() as session:
        one = session.query(Satellite.id).scalar()
        assert one is not None
        note_seen(session, {one: now, one + 1000: now})
        note_seen(session, {one: now - timedelta(hours=1)})

    with session_factory() as session:
        assert session.query(Satellite.last_seen).scalar() == now
