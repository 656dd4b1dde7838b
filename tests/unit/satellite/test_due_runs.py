"""Which flow runs a site starts: one at a time, one for all that were missed, each at the site's own moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from harbor_satellite.satellite.due_runs import DueRun, Verdict, decide

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def scheduled(minutes: float, flow: str = "replicate", inputs: str = "") -> DueRun:
    return DueRun(
        f"{flow} {minutes}{inputs}", flow, NOON + timedelta(minutes=minutes), is_scheduled=True, inputs=inputs
    )


def asked(minutes: float) -> DueRun:
    return DueRun(f"asked {minutes}", "replicate", NOON + timedelta(minutes=minutes), is_scheduled=False)


def decided(
    *runs: DueRun,
    jitter: float = 0,
    busy: set[str] | None = None,
    covered: dict[tuple[str, str], datetime] | None = None,
) -> Verdict:
    return decide(runs, NOON, jitter_seconds=jitter, busy=busy or set(), covered=covered or {})


def test_a_week_of_missed_runs_is_one_run() -> None:
    missed = [scheduled(-60 * hours) for hours in range(1, 168)]

    verdict = decided(*missed)

    assert verdict.start == (missed[0],)
    assert set(verdict.covered) == set(missed[1:])
    assert verdict.later == ()


def test_scheduled_run_waits_for_the_sites_own_moment() -> None:
    run = scheduled(-1)

    assert decided(run, jitter=90).later == ((run, NOON + timedelta(seconds=30)),)
    assert decided(run, jitter=60).start == (run,)


def test_prefetched_run_waits_until_it_is_due() -> None:
    run = scheduled(0.5)

    assert decided(run).later == ((run, run.due),)


def test_run_that_is_asked_for_starts_while_a_scheduled_one_waits_and_stands_for_it() -> None:
    waiting, now = scheduled(-2), asked(-1)

    verdict = decided(waiting, now, jitter=300)

    assert verdict == Verdict(start=(now,), covered=(waiting,))


def test_run_that_is_asked_for_starts_though_the_sites_clock_is_behind() -> None:
    run = asked(0.5)

    assert decided(run, jitter=300).start == (run,)


def test_scheduled_run_that_is_due_after_the_one_that_starts_is_not_covered() -> None:
    now, next_one = asked(-1), scheduled(0.5)

    verdict = decided(now, next_one)

    assert (verdict.start, verdict.later, verdict.covered) == ((now,), ((next_one, next_one.due),), ())


def test_run_of_a_busy_flow_waits_for_its_end() -> None:
    assert decided(asked(0), scheduled(-5), busy={"replicate"}) == Verdict()


def test_run_due_before_one_that_has_started_is_covered_and_a_later_one_is_not() -> None:
    before, after = scheduled(-10), scheduled(-1)

    verdict = decided(before, after, covered={before.kind: NOON - timedelta(minutes=5)})

    assert verdict == Verdict(start=(after,), covered=(before,))


def test_other_flows_and_other_inputs_stand_for_themselves() -> None:
    replicate, audit, other = scheduled(-5), scheduled(-9, flow="audit"), scheduled(-1, inputs="other")

    verdict = decided(replicate, audit, other)

    assert set(verdict.start) == {replicate, audit}  # two runs of one flow never overlap
    assert verdict.covered == ()


def test_run_that_was_asked_for_is_never_taken_away() -> None:
    older, newer = asked(-10), asked(-1)

    verdict = decided(older, newer, covered={older.kind: NOON})

    assert verdict == Verdict(start=(newer,))
    assert decided(older, covered={older.kind: newer.due}).start == (older,)
