"""The centre under a whole fleet: reports and idle polls of every site once a minute, and the operator's first page.

PostgreSQL and Ground Control are real, each in its own process; Prefect is one that counts. Load, service and
database share this machine's cores: with few of them the figures are those of the three together.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from tests.benchmarks import fleet_seed
from tests.benchmarks.copiers import OURS
from tests.benchmarks.measure import Row
from tests.benchmarks.table import Verdict
from tests.ground_control.postgres import running_postgres, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.inside import Result
    from tests.ground_control.postgres import PostgresServer

_PROJECT: Final = Path(__file__).resolve().parents[2]
_INTERVAL_SECONDS: Final = 60.0
_SECONDS: Final = 60.0
_P99_SECONDS: Final = 0.25
_PAGE_SECONDS: Final = 0.3
_CPU_MILLISECONDS: Final = 1.0
_PREFECT_CALLS: Final = 60
_NEWS: Final = 200  # reports that say something new, as after an update
_NEWS_SECONDS: Final = 10.0
_PAGES: Final = ("/api/fleet", "/api/fleet?sort=-lag", "/api/fleet?state=failing&sort=-lag", "/api/fleet/summary")


@dataclass(frozen=True, slots=True)
class Centre:
    """A running Ground Control over a seeded fleet."""

    url: str
    port: int
    prefect_port: int
    pid: int
    token: str

    def cpu_seconds(self) -> float:
        """Return what the process has used so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        """Return what it holds in memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def prefect_calls(self) -> int:
        """Return how often Prefect was called so far."""
        return int(httpx.get(f"http://127.0.0.1:{self.prefect_port}/count").text)

    def page_seconds(self, path: str) -> float:
        """Return the median of five looks at a page."""
        taken = []
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}) as client:
            for _ in range(5):
                started = time.perf_counter()
                client.get(path).raise_for_status()
                taken.append(time.perf_counter() - started)
        return statistics.median(taken)


def run(count: int, seconds: float = _SECONDS, interval: float = _INTERVAL_SECONDS) -> Result:
    """Let a fleet of so many sites call for a while, after a round in which all of them become known.

    Args:
        count: satellites.
        seconds: how long the measured load lasts.
        interval: between two reports, and between two polls, of a site.
    """
    name = f"fleet-{count}"
    with running_postgres(is_durable=True) as postgres, centre(postgres, count) as running:
        # That round costs each call thrice what it costs afterwards, and this machine has the sites on it, too.
        with load(running, count, 2 * interval, 2 * interval):
            pass
        cpu, calls, started, before = running.cpu_seconds(), running.prefect_calls(), time.monotonic(), os.getloadavg()
        with load(running, count, seconds, interval) as figures:
            pass
        wall = time.monotonic() - started
        cpu, calls, rss = running.cpu_seconds() - cpu, running.prefect_calls() - calls, running.rss_bytes()
        with load(running, count, interval / 2, interval):
            time.sleep(interval / 6)
            pages = {path: running.page_seconds(path) for path in _PAGES}
        used = running.cpu_seconds()
        with load(running, min(count, _NEWS), _NEWS_SECONDS, _NEWS_SECONDS, is_news=True) as news:
            pass
        used = running.cpu_seconds() - used
    told = "; ".join(
        f"{kind}: {of['count']}, p50 {of['p50'] * 1000:.0f} ms, p99 {of['p99'] * 1000:.0f} ms, errors {of['errors']}"
        for kind, of in figures.items()
    )
    title = f"{name} — {count} sites, a report and a poll each every {interval:.0f} s for {seconds:.0f} s ({told})"
    title += (
        f"; load average before {before[0]:.1f}; {used / news['reports']['count'] * 1000:.1f} ms CPU a report with news"
    )
    answered = sum(of["count"] for of in figures.values())
    row = Row(name, OURS, wall, cpu, rss, 0, answered, not any(of["errors"] for of in figures.values()))
    verdicts = [Verdict(name, f"p99 of {kind} (s)", of["p99"], _P99_SECONDS) for kind, of in figures.items()]
    verdicts += [Verdict(name, f"errors of {kind}", sum(of["errors"].values()), 0) for kind, of in figures.items()]
    verdicts += [
        Verdict(name, f"GET {path}, under that load (s)", taken, _PAGE_SECONDS) for path, taken in pages.items()
    ]
    verdicts.append(Verdict(name, "CPU a call (ms)", cpu * 1000 / answered, _CPU_MILLISECONDS))
    # The shared look, every few seconds, whatever the fleet's size.
    verdicts.append(Verdict(name, "calls to Prefect a minute", calls * 60 / wall, _PREFECT_CALLS))
    return title, [row], verdicts


def workload(_source_kind: str, scale: float) -> Result:
    """Measure ten thousand sites; for a quick look fewer, and for a shorter time."""
    if scale < 1:
        return run(200, 10.0, 10.0)
    return run(10_000)


def workload_small(_source_kind: str, scale: float) -> Result:
    """Measure a thousand sites, for a short time: whether what is counted depends on how many there are."""
    return run(1000, 30.0, 30.0) if scale == 1 else run(100, 10.0, 10.0)


@contextmanager
def load(
    running: Centre, count: int, seconds: float, interval: float, *, is_news: bool = False
) -> Iterator[dict[str, Any]]:
    """Let the fleet call, from a process of its own, during the block and to its own end; then there are figures."""
    kinds = ("report",) if is_news else ("report", "poll")
    order = {"port": running.port, "count": count, "interval": interval, "seconds": seconds}
    figures: dict[str, Any] = {}
    argv = [sys.executable, "-m", "tests.benchmarks.fleet_load"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_PROJECT) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the load has no pipes")
        process.stdin.write(json.dumps({**order, "kinds": kinds, "is_news": is_news}))
        process.stdin.close()
        yield figures
        figures.update(json.loads(process.stdout.read()))


@contextmanager
def centre(postgres: PostgresServer, count: int) -> Iterator[Centre]:
    """Seed a fleet, and serve Ground Control over it as long as the block lasts."""
    postgres.execute("CREATE DATABASE fleet")
    url = postgres.url("fleet")
    fleet_seed.seed(url, count)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "tests.benchmarks.fleet_server", url, str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=_PROJECT) as process:
        try:
            prefect_port = int((process.stdout.readline() if process.stdout else "0").strip())
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}/ping"), "Ground Control")
            token = fleet_seed.login_token(url)
            yield Centre(f"http://127.0.0.1:{port}", port, prefect_port, process.pid, token)
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False
