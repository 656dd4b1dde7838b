"""Rollouts in a simulated fleet: waves, receipts, thresholds, and flows that die at every step."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, event, func, select, update

from harbor_satellite.errors import ConflictError, InvalidInputError, NotFoundError
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.models import (
    AppliedGroupRow,
    AuditEvent,
    GenerationPin,
    Group,
    OutboxEvent,
    Rollout,
    RolloutSatellite,
    Satellite,
    SatelliteConfig,
    SatelliteGroup,
    SatelliteLabel,
)
from harbor_satellite.ground_control.rollouts import pins, rollout_steps, rollout_view, rollouts
from harbor_satellite.ground_control.rollouts.rollout_plan import Member, Wave, assign, checked_waves
from harbor_satellite.ground_control.rollouts.rollouts import RolloutPlan
from tests.ground_control.fleet_simulation import Fleet

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.rollouts.rollout_steps import StepResult

CANARY_THEN_ALL = (Wave("canary", percent=10, soak_seconds=600), Wave("half", percent=50))


@dataclass
class Rolling:
    """A fleet on generation 1 of a staged group, of which there is a generation 2."""

    fleet: Fleet
    names: list[str] = field(default_factory=list)

    def create(self, waves: tuple[Wave, ...] = CANARY_THEN_ALL, *, is_started: bool = True, **values: Any) -> int:
        with self.fleet.factory.begin() as session:
            plan = RolloutPlan("shop", values.pop("generation", None), waves, **values)
            rollout_id = rollouts.plan_rollout(session, plan, "admin", self.fleet.now).id
            if is_started:
                rollouts.start_rollout(session, rollout_id, self.fleet.now)
        return rollout_id

    def step(self, rollout_id: int) -> StepResult:
        """Do what the flow does in one run."""
        with self.fleet.factory.begin() as session:
            result = rollout_steps.advance(session, rollout_id, self.fleet.now)
        self.fleet.advance(seconds=1)
        self.fleet.publish_satellites()
        return result

    def on_target(self, generation: int = 2) -> list[str]:
        return [name for name in self.names if self.fleet.followed(name) == generation]

    def answer(self, **values: Any) -> None:
        """Let every site that has a new state report."""
        self.fleet.advance(seconds=5)
        self.fleet.report(self.names, **values)
        self.fleet.advance(seconds=5)

    def rollout(self, rollout_id: int) -> Rollout:
        with self.fleet.factory() as session:
            return session.get_one(Rollout, rollout_id)

    def states(self, rollout_id: int) -> dict[str, str]:
        with self.fleet.factory() as session:
            rows, _ = rollout_view.list_satellites(session, rollout_id, limit=10_000)
            return {name: row.state for row, name in rows}

    def run(self, rollout_id: int, *, limit: int = 100) -> str:
        """Step until it is over, with sites that answer."""
        for _ in range(limit):
            state = self.step(rollout_id).state
            if state in {"completed", "aborted", "paused", "rolled_back"}:
                return state
            self.answer()
            self.fleet.advance(seconds=300)
        raise AssertionError(f"rollout {rollout_id} does not end: {self.rollout(rollout_id).state}")


@pytest.fixture
def rolling(session_factory: SessionFactory) -> Rolling:
    return make_rolling(session_factory, 20)


def make_rolling(factory: SessionFactory, count: int) -> Rolling:
    fleet = Fleet(factory)
    fleet.add_group(is_staged=True)
    fleet.publish(1)
    with factory.begin() as session:
        session.execute(update(Group).values(released_generation=1))
    names = fleet.add_satellites(count)
    fleet.publish_satellites()
    fleet.report(names)
    fleet.advance(seconds=10)
    fleet.publish(2)
    return Rolling(fleet, names)


# -- waves --------------------------------------------------------------------------------------------------------


def test_checked_waves_end_with_everybody_else() -> None:
    waves = checked_waves([Wave("", labels={"ring": "canary"}), Wave("", percent=10)])

    assert [(wave.name, wave.percent) for wave in waves] == [
        ("wave 1", None),
        ("wave 2", 10),
        ("everybody else", 100),
    ]


@pytest.mark.parametrize(
    "waves",
    [
        [],
        [Wave("a")],
        [Wave("a", percent=5, satellites=("x",))],
        [Wave("a", percent=50), Wave("b", percent=50)],
        [Wave("a", percent=101)],
        [Wave("a", percent=0)],
        [Wave("a", percent=5, soak_seconds=-1)],
    ],
    ids=["none", "says nothing", "says two things", "does not grow", "above all", "nobody", "negative soak"],
)
def test_checked_waves_refuses(waves: list[Wave]) -> None:
    with pytest.raises(InvalidInputError):
        checked_waves(waves)


def test_assign_gives_every_member_one_wave_and_fit_ones_the_first() -> None:
    members = [Member(number, f"edge-{number}", {}, is_fit=number % 2 == 0) for number in range(100)]
    waves = checked_waves([Wave("canary", percent=5), Wave("half", percent=50)])

    found = assign(waves, members, "shop")

    assert Counter(found.values()) == {0: 5, 1: 45, 2: 50}
    assert all(number % 2 == 0 for number, wave in found.items() if wave < 2)
    assert found == assign(waves, members[::-1], "shop")
    assert found != assign(waves, members, "ops")


def test_assign_by_labels_and_names_before_shares() -> None:
    members = [Member(number, f"edge-{number}", {"ring": "a" if number < 3 else "b"}) for number in range(10)]
    waves = checked_waves([Wave("a", satellites=("edge-9",)), Wave("b", labels={"ring": "a"}), Wave("c", percent=60)])

    found = assign(waves, members, "shop")

    assert {number for number, wave in found.items() if wave == 0} == {9}
    assert {number for number, wave in found.items() if wave == 1} == {0, 1, 2}
    assert Counter(found.values()) == {0: 1, 1: 3, 2: 2, 3: 4}


# -- the way of one rollout ---------------------------------------------------------------------------------------


def test_rollout_moves_wave_by_wave_on_receipts_alone(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    reached = []

    for _ in range(2):  # nobody answers: nobody else is moved
        rolling.step(rollout_id)
        reached.append(len(rolling.on_target()))
    rolling.answer()
    soaking = rolling.step(rollout_id).state
    reached.append(len(rolling.on_target()))
    rolling.fleet.advance(seconds=600)
    rolling.answer()
    rolling.step(rollout_id)
    reached.append(len(rolling.on_target()))
    rolling.answer()
    end = rolling.run(rollout_id)

    assert reached == [2, 2, 2, 10]
    assert (soaking, end, len(rolling.on_target())) == ("soaking", "completed", 20)


def test_rollout_completed_leaves_no_pins_and_the_group_released(rolling: Rolling) -> None:
    rolling.run(rolling.create())

    rolling.fleet.publish_satellites()

    with rolling.fleet.factory() as session:
        assert session.scalars(select(GenerationPin)).all() == []
        assert groups.show_group(session, "shop").released_generation == 2
    assert len(rolling.on_target()) == 20


def test_start_stages_the_group_where_it_is(session_factory: SessionFactory) -> None:
    rolling = make_rolling(session_factory, 3)
    with session_factory.begin() as session:
        session.execute(update(Group).values(is_staged=False, released_generation=None))

    planned = rolling.create(is_started=False)
    with session_factory() as session:
        before = groups.show_group(session, "shop").is_staged
    with session_factory.begin() as session:
        rollouts.start_rollout(session, planned, rolling.fleet.now)
        group = groups.show_group(session, "shop")

        assert (before, group.is_staged, group.released_generation) == (False, True, 2)


def test_rollout_past_its_failures_aborts_and_moves_nobody_else(rolling: Rolling) -> None:
    rollout_id = rolling.create(max_failures=1)
    rolling.step(rollout_id)

    rolling.answer(failures=3)
    result = rolling.step(rollout_id)

    assert (result.state, len(rolling.on_target())) == ("aborted", 2)
    assert result.reason == "aborted"
    assert rolling.rollout(rollout_id).reason == "2 satellites failed; 1 may"


def test_rollout_within_its_failures_goes_on(rolling: Rolling) -> None:
    rollout_id = rolling.create(max_failure_percent=5)
    rolling.step(rollout_id)
    bad, good = rolling.on_target()

    rolling.fleet.advance(seconds=5)
    rolling.fleet.report([bad], failures=1)
    rolling.fleet.report([good])
    rolling.fleet.advance(seconds=5)
    result = rolling.step(rollout_id)

    assert (result.state, rolling.states(rollout_id)[bad]) == ("soaking", "failed")


def test_failure_in_the_soak_time_counts(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    rolling.step(rollout_id)
    rolling.answer()
    soaking = rolling.step(rollout_id).state

    rolling.answer(failures=1)
    result = rolling.step(rollout_id)

    assert (soaking, result.state, len(rolling.on_target())) == ("soaking", "aborted", 2)


def test_site_that_says_nothing_in_time_has_failed(rolling: Rolling) -> None:
    rollout_id = rolling.create(receipt_timeout_seconds=600)
    rolling.step(rollout_id)

    rolling.fleet.advance(seconds=500)
    early = rolling.step(rollout_id).state
    rolling.fleet.advance(seconds=200)
    late = rolling.step(rollout_id).state

    assert (early, late) == ("running", "aborted")


def test_time_in_which_the_windows_are_closed_does_not_count(rolling: Rolling) -> None:
    rollout_id = rolling.create(receipt_timeout_seconds=600)
    rolling.step(rollout_id)
    with rolling.fleet.factory.begin() as session:
        now = rolling.fleet.now
        window = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
        content = {"sync_windows": [window], "timezone": "UTC"}
        session.add(SatelliteConfig(name="night", source_registry="", content=content, created_at=now, updated_at=now))
        session.execute(update(Group).values(config_name="night"))

    rolling.fleet.advance(hours=1)
    closed = rolling.step(rollout_id).state
    rolling.fleet.advance(hours=1, minutes=30)
    open_for_half_an_hour = rolling.step(rollout_id).state

    assert (closed, open_for_half_an_hour) == ("running", "aborted")


def test_time_in_which_the_state_could_not_be_published_does_not_count(rolling: Rolling) -> None:
    rollout_id = rolling.create(receipt_timeout_seconds=600)
    with rolling.fleet.factory.begin() as session:
        rollout_steps.advance(session, rollout_id, rolling.fleet.now)  # and the source is down
    rolling.fleet.advance(seconds=5000)
    with rolling.fleet.factory.begin() as session:
        result = rollout_steps.advance(session, rollout_id, rolling.fleet.now)

    assert result.state == "running"


def test_dead_site_is_released_and_stops_nobody(rolling: Rolling) -> None:
    (dead,) = rolling.fleet.add_satellites(1, is_fit=False)

    end = rolling.run(rollout_id := rolling.create())

    assert (end, rolling.states(rollout_id)[dead]) == ("completed", "skipped")
    assert rolling.fleet.followed(dead) == 2


def test_wave_in_which_nobody_answers_pauses_until_somebody_says_go_on(rolling: Rolling) -> None:
    dead = rolling.fleet.add_satellites(2, is_fit=False)
    rollout_id = rolling.create((Wave("dead ones", satellites=tuple(dead)),))

    rolling.step(rollout_id)
    paused = rolling.step(rollout_id).state
    with rolling.fleet.factory.begin() as session:
        rollouts.resume_rollout(session, rollout_id, rolling.fleet.now)

    assert paused == "paused"
    assert rolling.run(rollout_id) == "completed"


def test_revoked_and_held_satellites_are_left_alone(rolling: Rolling) -> None:
    revoked, held = rolling.names[:2]
    with rolling.fleet.factory.begin() as session:
        session.execute(update(Satellite).where(Satellite.name == held).values(lifecycle="active"))
        pins.hold_pin(session, held, "shop", 1, rolling.fleet.now)
    rollout_id = rolling.create()
    with rolling.fleet.factory.begin() as session:
        session.execute(update(Satellite).where(Satellite.name == revoked).values(lifecycle="revoked"))

    rolling.run(rollout_id)

    states = rolling.states(rollout_id)
    assert (states[revoked], states[held], rolling.fleet.followed(held)) == ("skipped", "skipped", 1)


def test_satellite_that_joins_follows_what_is_released(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    rolling.step(rollout_id)
    (late,) = rolling.fleet.add_satellites(1)
    rolling.fleet.publish_satellites()
    before = rolling.fleet.followed(late)

    rolling.run(rollout_id)
    rolling.fleet.publish_satellites()

    assert (before, rolling.fleet.followed(late)) == (1, 2)


def test_satellites_that_go_do_not_stop_a_rollout(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    rolling.step(rollout_id)
    gone, left = rolling.on_target()
    with rolling.fleet.factory.begin() as session:
        session.execute(delete(Satellite).where(Satellite.name == gone))
        left_id = select(Satellite.id).where(Satellite.name == left).scalar_subquery()
        session.execute(delete(SatelliteGroup).where(SatelliteGroup.satellite_id == left_id))

    result = rolling.step(rollout_id)

    assert (result.state, rolling.states(rollout_id)[left]) == ("paused", "skipped")  # the canary has shown nothing


def test_group_that_is_deleted_takes_its_rollouts_along(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    rolling.step(rollout_id)

    with rolling.fleet.factory.begin() as session:
        groups.delete_group(session, "shop", rolling.fleet.now)

    with rolling.fleet.factory.begin() as session, pytest.raises(NotFoundError):
        rollout_steps.advance(session, rollout_id, rolling.fleet.now)


def test_second_rollout_of_a_group_conflicts_with_the_one_that_runs(rolling: Rolling) -> None:
    rolling.create()
    second = rolling.create(is_started=False)

    with rolling.fleet.factory.begin() as session, pytest.raises(ConflictError, match="going on"):
        rollouts.start_rollout(session, second, rolling.fleet.now)


def test_going_back_must_be_said_to_be_meant(rolling: Rolling) -> None:
    rolling.run(rolling.create())

    with pytest.raises(InvalidInputError, match="20 satellites are past generation 1"):
        rolling.create(generation=1)


def test_rollout_to_an_older_generation_marks_it_for_everybody(rolling: Rolling) -> None:
    rolling.run(rolling.create())
    rolling.fleet.advance(seconds=60)

    end = rolling.run(rolling.create(generation=1, is_rollback=True))
    rolling.fleet.publish_satellites()

    named = {pin.is_rollback for state in rolling.fleet.pushes.states.values() for pin in state.groups}
    assert (end, len(rolling.on_target(1)), named) == ("completed", 20, {True})


def test_roll_back_sends_back_whom_it_moved_and_says_so(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    rolling.step(rollout_id)
    moved = rolling.on_target()
    rolling.answer()

    with rolling.fleet.factory.begin() as session:
        rollouts.roll_back(session, rollout_id, "too slow", rolling.fleet.now)
    rolling.fleet.publish_satellites()

    marks = {name for name in rolling.names for pin in rolling.fleet.pushes.states[name].groups if pin.is_rollback}
    assert (rolling.on_target(), marks) == ([], set(moved))
    assert rolling.rollout(rollout_id).state == "rolled_back"


def test_roll_back_of_an_old_rollout_leaves_whom_a_later_one_moved(rolling: Rolling) -> None:
    first = rolling.create()
    rolling.step(first)
    with rolling.fleet.factory.begin() as session:
        rollouts.abort_rollout(session, first, "", rolling.fleet.now)
    rolling.fleet.publish(3)
    rolling.run(rolling.create())

    with rolling.fleet.factory.begin() as session:
        rollouts.roll_back(session, first, "", rolling.fleet.now)
    rolling.fleet.publish_satellites()

    assert len(rolling.on_target(3)) == 20


def test_start_of_a_rollout_that_satellites_have_gone_past_conflicts(rolling: Rolling) -> None:
    forgotten = rolling.create(is_started=False)
    rolling.fleet.publish(3)
    rolling.run(rolling.create())

    with (
        rolling.fleet.factory.begin() as session,
        pytest.raises(ConflictError, match="20 satellites have gone past generation 2"),
    ):
        rollouts.start_rollout(session, forgotten, rolling.fleet.now)


def test_receipt_of_a_site_that_names_no_generations_is_the_state_that_it_is_on(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    rolling.step(rollout_id)
    moved = rolling.on_target()
    before = {rolling.states(rollout_id)[name] for name in moved}
    rolling.answer()
    with rolling.fleet.factory.begin() as session:
        session.execute(delete(AppliedGroupRow))

    rolling.step(rollout_id)

    assert (before, {rolling.states(rollout_id)[name] for name in moved}) == ({"released"}, {"succeeded"})


def test_site_that_names_no_generations_and_is_on_its_old_state_has_not_answered(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    with rolling.fleet.factory.begin() as session:
        session.execute(delete(AppliedGroupRow))
    rolling.step(rollout_id)
    moved = rolling.on_target()

    rolling.step(rollout_id)

    assert {rolling.states(rollout_id)[name] for name in moved} == {"released"}


def test_success_of_a_site_that_names_no_generations_outlives_its_next_state(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    rolling.step(rollout_id)
    moved = rolling.on_target()
    rolling.answer()
    with rolling.fleet.factory.begin() as session:
        session.execute(delete(AppliedGroupRow))
    rolling.step(rollout_id)
    with rolling.fleet.factory.begin() as session:
        session.execute(update(Satellite).values(state_digest="sha256:next"))  # of another of its groups

    rolling.step(rollout_id)

    assert {rolling.states(rollout_id)[name] for name in moved} == {"succeeded"}


def test_satellite_for_which_nothing_can_be_published_stops_nobody(rolling: Rolling) -> None:
    rolling.fleet.add_group("empty")
    (stuck,) = rolling.fleet.add_satellites(1, "shop", "empty")
    rollout_id = rolling.create((Wave("all", percent=100),), receipt_timeout_seconds=600)

    for _ in range(4):
        rolling.step(rollout_id)
        rolling.fleet.advance(seconds=400)
        with rolling.fleet.factory.begin() as session:
            session.execute(update(Satellite).values(last_seen=rolling.fleet.now))
        rolling.answer()
    state = rolling.step(rollout_id).state

    assert (state, rolling.states(rollout_id)[stuck]) == ("completed", "skipped")


def test_rollout_completed_takes_along_those_that_it_did_not_list(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    rolling.step(rollout_id)
    name = rolling.names[0]
    with rolling.fleet.factory.begin() as session:
        groups.remove_satellite(session, name, "shop", rolling.fleet.now)
        groups.add_satellite(session, name, "shop", rolling.fleet.now)
        satellite_id = select(Satellite.id).where(Satellite.name == name).scalar_subquery()
        session.execute(delete(RolloutSatellite).where(RolloutSatellite.satellite_id == satellite_id))

    end = rolling.run(rollout_id)
    rolling.fleet.publish_satellites()

    assert (end, len(rolling.on_target())) == ("completed", 20)


def test_roll_back_leaves_held_satellites(rolling: Rolling) -> None:
    rollout_id = rolling.create()
    rolling.step(rollout_id)
    held, _ = rolling.on_target()

    with rolling.fleet.factory.begin() as session:
        pins.hold_pin(session, held, "shop", 2, rolling.fleet.now)
        rollouts.roll_back(session, rollout_id, "", rolling.fleet.now)
    rolling.fleet.publish_satellites()

    assert rolling.on_target() == [held]


def test_pause_stops_the_next_wave_and_takes_receipts_in(rolling: Rolling) -> None:
    rollout_id = rolling.create((Wave("canary", percent=10),))
    rolling.step(rollout_id)
    with rolling.fleet.factory.begin() as session:
        rollouts.pause_rollout(session, rollout_id, "lunch", rolling.fleet.now)
    rolling.answer()

    rolling.step(rollout_id)
    paused = len(rolling.on_target()), Counter(rolling.states(rollout_id).values())["succeeded"]
    with rolling.fleet.factory.begin() as session:
        rollouts.resume_rollout(session, rollout_id, rolling.fleet.now)
    rolling.step(rollout_id)

    assert (paused, len(rolling.on_target())) == ((2, 2), 20)


@pytest.mark.parametrize("action", [rollouts.resume_rollout, rollouts.start_rollout], ids=["resume", "start"])
def test_control_of_a_rollout_that_is_over_conflicts(rolling: Rolling, action: Any) -> None:
    rollout_id = rolling.create()
    rolling.run(rollout_id)

    with rolling.fleet.factory.begin() as session, pytest.raises(ConflictError, match="is completed"):
        action(session, rollout_id, rolling.fleet.now)


def test_two_flows_at_once_release_nobody_twice(rolling: Rolling) -> None:
    rollout_id = rolling.create()

    def step(_: int) -> bool:
        with rolling.fleet.factory.begin() as session:
            return rollout_steps.advance(session, rollout_id, rolling.fleet.now).is_changed

    with ThreadPoolExecutor(4) as pool:
        changed = list(pool.map(step, range(4)))

    with rolling.fleet.factory() as session:
        released = session.scalar(select(func.count()).where(AuditEvent.action == "rollout.release"))
    assert (sorted(changed), released) == ([False, False, False, True], 1)


def test_step_is_in_the_audit_log_and_states_are_told_to_prefect(rolling: Rolling) -> None:
    rolling.step(rolling.create())

    with rolling.fleet.factory() as session:
        audit = session.scalars(select(AuditEvent)).one()
        events = session.scalars(select(OutboxEvent.event).where(OutboxEvent.event.contains("rollout"))).all()
    assert (audit.actor, audit.action, events) == (
        "flow:roll-out",
        "rollout.release",
        ["harbor-satellite.rollout.changed"],
    )


def test_plan_takes_waves_by_label(rolling: Rolling) -> None:
    with rolling.fleet.factory.begin() as session:
        satellite_id = session.scalars(select(Satellite.id).where(Satellite.name == rolling.names[7])).one()
        session.add(SatelliteLabel(satellite_id=satellite_id, key="ring", value="canary"))

    rolling.step(rolling.create((Wave("canary", labels={"ring": "canary"}),)))

    assert rolling.on_target() == [rolling.names[7]]


# -- a flow that dies anywhere ------------------------------------------------------------------------------------


class KilledError(Exception):
    """The process that ran the flow is gone."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_rollout_whose_flow_is_killed_again_and_again_completes(session_factory: SessionFactory, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
    rolling = make_rolling(session_factory, 200)
    waves = (Wave("canary", percent=2, soak_seconds=60), Wave("some", percent=30, soak_seconds=30))
    rollout_id = rolling.create(waves, max_failures=5, receipt_timeout_seconds=3600)
    released: Counter[str] = Counter()
    kills = left = 0
    state = ""

    def die_sometimes(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError

    engine = session_factory.kw["bind"]
    event.listen(engine, "before_cursor_execute", die_sometimes)
    try:
        for _ in range(400):
            before = {name for name in rolling.names if rolling.fleet.followed(name) == 2}
            left = chance.choice(
                (0, chance.randrange(1, 40), chance.randrange(1, 40))
            )  # statements until the flow dies; 0: it lives
            try:
                state = rolling.step(rollout_id).state
            except KilledError:
                kills, state = kills + 1, ""
            left = 0
            for name in set(rolling.on_target()) - before:
                released[name] += 1
            held_to(rolling, rollout_id)
            if state == "completed":
                break
            rolling.fleet.advance(seconds=20)
            rolling.fleet.report(chance.sample(rolling.names, 150))
            if chance.random() < 0.1:
                rolling.fleet.report(chance.sample(rolling.names, 1), failures=1)
    finally:
        event.remove(engine, "before_cursor_execute", die_sometimes)
    rolling.fleet.publish_satellites()

    assert (state, len(rolling.on_target())) == ("completed", 200)
    assert kills
    assert set(released.values()) == {1}


def held_to(rolling: Rolling, rollout_id: int) -> None:
    """Check what must be true at every moment: nobody is ahead of the current wave."""
    with rolling.fleet.factory() as session:
        rollout = session.get_one(Rollout, rollout_id)
        row = RolloutSatellite
        ahead = session.scalar(
            select(func.count()).where(
                row.rollout_id == rollout_id, row.wave > rollout.current_wave, row.state != "waiting"
            )
        )
    assert ahead == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_rollout_of_a_bad_generation_never_fails_more_than_a_wave(session_factory: SessionFactory, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
    rolling = make_rolling(session_factory, 200)
    waves = (Wave("canary", percent=5), Wave("half", percent=50))
    rollout_id = rolling.create(waves, max_failures=3, receipt_timeout_seconds=3600)

    for _ in range(60):
        if rolling.step(rollout_id).state == "aborted":
            break
        rolling.fleet.advance(seconds=20)
        bad = [name for name in rolling.on_target() if chance.random() < 0.3]
        rolling.fleet.report(bad, failures=1)

    assert rolling.rollout(rollout_id).state == "aborted"
    assert len(rolling.on_target()) == 10
