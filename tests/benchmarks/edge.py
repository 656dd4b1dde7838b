"""A small machine: what a site's own processes hold, compute and send when there is nothing to do.

All is real: the centre on PostgreSQL, the site with `prefect-client` on a host of its own, behind a link that counts
every byte with its headers, down to Ethernet's. The link is plain HTTP: TLS adds some 50 bytes a poll.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from harbor_satellite.ground_control.models import DEFAULT_SCHEDULE
from harbor_satellite.satellite.schedule import interval_seconds
from tests.acceptance.centre import run_centre
from tests.acceptance.shop import Shop
from tests.benchmarks.copiers import OURS
from tests.benchmarks.edge_site import SmallSite, Spent, look, missing
from tests.benchmarks.measure import Row
from tests.benchmarks.table import Verdict
from tests.fakes.host import Host
from tests.ground_control.postgres import running_postgres

if TYPE_CHECKING:
    from tests.benchmarks.edge_site import Taken
    from tests.benchmarks.inside import Result

_NAME: Final = "small"
_RUNS: Final = 10
_IDLE_SECONDS: Final = 900.0  # three reports
_QUIET_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 4.0  # for what a run says after its end: log lines every 2 s, events
_FAST_POLL: Final = "2"
_DAY_SECONDS: Final = 86_400
_HOUR_SECONDS: Final = 3_600
_HOURLY: Final = 24
_TARGET_MEGABYTES: Final = 150
_TARGET_CPU_SECONDS: Final = 1.0
# The original at its default, measured once beside its own Ground Control: a cycle every 30 s, with nothing to do.
_ORIGINAL_UP: Final = 2_300  # bytes a cycle
_ORIGINAL_DOWN: Final = 4_500
_ORIGINAL_CYCLE_SECONDS: Final = 30
_ORIGINAL_DAY: Final = (_ORIGINAL_UP + _ORIGINAL_DOWN) * _DAY_SECONDS // _ORIGINAL_CYCLE_SECONDS
_ORIGINAL_MEMORY: Final = "69–78 MB at its peak"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a site holds when it is idle."""

    agent: Taken
    """Supervisor and agent."""
    registry: Taken


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured."""

    first: Memory
    """After the first run."""
    later: Memory
    """After ten more, in the same process."""
    runs: list[Row]
    """Runs without a change."""
    idle: Spent
    """Nothing to do, at the default settings."""


def workload(_source_kind: str, scale: float) -> Result:
    """Measure a site with one image; for a quick look, three runs and a minute and a half of idleness."""
    if reason := missing():
        return f"edge — NOT MEASURED: {reason}", [], []
    with tempfile.TemporaryDirectory(prefix="harbor-satellite-bench-edge-", ignore_cleanup_errors=True) as folder:
        figures = _measure(Path(folder), _RUNS if scale == 1 else 3, _IDLE_SECONDS if scale == 1 else 90.0)
    return _told(figures)


def _measure(folder: Path, runs: int, idle_seconds: float) -> Figures:
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        postgres.execute("CREATE DATABASE edge")
        centre = stack.enter_context(run_centre(folder / "centre", postgres.url("edge")))
        ports = [urlsplit(url).port or 0 for url in (centre.url, centre.central.url)]
        host = stack.enter_context(Host(ports))
        shop = Shop(_NAME, folder / "unused", centre, host)
        site = shop.site = stack.enter_context(SmallSite(_NAME, folder / "site", centre, host))
        # So that a run that is asked for starts soon; all else is as it is without any setting.
        site.settings["POLL_INTERVAL_SECONDS"] = _FAST_POLL
        shop.open()
        first, measured, later = _run_often(shop, site, runs)
        site.stop()
        del site.settings["POLL_INTERVAL_SECONDS"]
        site.start()
        site.wait_polling()
        _run(shop)  # it is a site at work whose idleness is measured
        before = look(site, site.agent_pids)
        time.sleep(idle_seconds)
        return Figures(first, later, measured, Spent(before, look(site, site.agent_pids)))


def _run_often(shop: Shop, site: SmallSite, runs: int) -> tuple[Memory, list[Row], Memory]:
    shop.wait_quiet()
    time.sleep(_SETTLE_SECONDS)
    first, before = _held(site), look(site, site.agent_pids)
    time.sleep(_QUIET_SECONDS)
    quiet = Spent(before, look(site, site.agent_pids))
    rows = []
    for _ in range(runs):
        before = look(site, site.agent_pids)
        _run(shop)
        spent = Spent(before, look(site, site.agent_pids))
        (run,) = shop.runs("COMPLETED")[-1:]
        # The polls of that time are idleness; what they take is shown there.
        crossed = spent.crossed - round(quiet.per_second(quiet.crossed) * spent.wall)
        cpu = spent.cpu - quiet.per_second(quiet.cpu) * spent.wall
        rows.append(Row("edge-run", OURS, _wall_seconds(run), cpu, spent.after.rss_bytes, crossed, 0))
    return first, rows, _held(site)


def _run(shop: Shop) -> None:
    """Have the site run once, as its schedule would, and let it settle."""
    state = shop.centre.run_flow(f"replicate-state/{shop.name}")
    if state != "COMPLETED":
        raise RuntimeError(f"a run without a change ended {state}")
    time.sleep(_SETTLE_SECONDS)


def _wall_seconds(run: dict[str, Any]) -> float:
    """Return how long a run took, by Prefect: from its start to its end."""
    start, end = (datetime.fromisoformat(run[name]) for name in ("start_time", "end_time"))
    return (end - start).total_seconds()


def _held(site: SmallSite) -> Memory:
    return Memory(look(site, site.agent_pids), look(site, (site.service("registry")["pid"],)))


def _told(figures: Figures) -> Result:
    idle, runs = figures.idle, figures.runs
    run = Row(
        "edge-run",
        OURS,
        statistics.median(row.wall for row in runs),
        statistics.median(row.cpu for row in runs),
        max(row.rss for row in runs),
        int(statistics.median(row.source_bytes for row in runs)),
        0,
    )
    rows = [Row("edge-idle", OURS, idle.wall, idle.cpu, idle.after.rss_bytes, idle.crossed, 0), run]
    a_day = idle.per_second(idle.crossed) * _DAY_SECONDS
    runs_a_day = round(_DAY_SECONDS / interval_seconds(DEFAULT_SCHEDULE))
    tenth = _ORIGINAL_DAY / 1e7  # in MB, as the next

    def with_runs(count: int) -> float:
        return (a_day + count * run.source_bytes) / 1e6

    title = (
        "edge — a small machine: prefect-client, the embedded registry in a process of its own; hour and day are "
        f"extrapolated from {idle.wall:.0f} s of idleness\n"
        f"  memory of supervisor and agent: {_memory(figures.first.agent)} after the first run, "
        f"{_memory(figures.later.agent)} after {len(runs)} more; the registry beside them: "
        f"{_memory(figures.later.registry)}; the original: {_ORIGINAL_MEMORY}\n"
        f"  idle: {idle.per_second(idle.cpu) * _HOUR_SECONDS:.1f} CPU-s an hour; "
        f"{idle.per_second(idle.up) * _DAY_SECONDS / 1e6:.2f} MB up + "
        f"{idle.per_second(idle.down) * _DAY_SECONDS / 1e6:.2f} MB down a day; the original at its default: "
        f"{_ORIGINAL_UP / 1e3:.1f} KB up + {_ORIGINAL_DOWN / 1e3:.1f} KB down every {_ORIGINAL_CYCLE_SECONDS} s, "
        f"{_ORIGINAL_DAY / 1e6:.1f} MB a day\n"
        f"  a run without a change: {run.source_bytes / 1e3:.1f} KB over the link, beyond the polls meanwhile; "
        f"{runs_a_day} a day by the default schedule, {_HOURLY} by an hourly one"
    )
    verdicts = [
        Verdict("edge", "idle RSS after the first run (MB)", figures.first.agent.rss_bytes / 1e6, _TARGET_MEGABYTES),
        Verdict("edge", "idle RSS after ten more (MB)", figures.later.agent.rss_bytes / 1e6, _TARGET_MEGABYTES),
        Verdict("edge", "CPU of a run without a change (s)", run.cpu, _TARGET_CPU_SECONDS),
        Verdict("edge", "idle bytes a day, no run among them (MB)", a_day / 1e6, tenth),
        Verdict("edge", f"idle bytes a day with {_HOURLY} runs (MB)", with_runs(_HOURLY), tenth),
        Verdict("edge", f"idle bytes a day with {runs_a_day} runs (MB)", with_runs(runs_a_day), tenth),
    ]
    return title, rows, verdicts


def _memory(taken: Taken) -> str:
    return f"{taken.rss_bytes / 1e6:.0f} MB RSS ({taken.pss_bytes / 1e6:.0f} PSS)"
