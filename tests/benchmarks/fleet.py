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
_SECONDS: Final = 120.0
_P99_SECONDS: Final = 0.25
_PAGE_SECONDS: Final = 0.3
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
    """Let a fleet of so many sites call for a while, after a round in which all of them have news.

    Args:
        count: satellites.
        seconds: how long the measured load lasts.
        interval: between two reports, and between two polls, of a site.
    """
    name = f"fleet-{count}"
    with running_postgres() as postgres, centre(postgres, count) as running:
        pages = {path: running.page_seconds(path) for path in _PAGES}
        load(running, count, interval, interval)  # first reports are news, as after an update of everything
        cpu, calls, started = running.cpu_seconds(), running.prefect_calls(), time.monotonic()
        figures = load(running, count, seconds, interval)
        wall = time.monotonic() - started
        cpu, calls, rss = running.cpu_seconds() - cpu, running.prefect_calls() - calls, running.rss_bytes()
    kinds = {kind: figures[kind] for kind in ("reports", "polls")}
    told = "; ".join(
        f"{kind}: {of['count']}, p50 {of['p50'] * 1000:.0f} ms, p99 {of['p99'] * 1000:.0f} ms, errors {of['errors']}"
        for kind, of in kinds.items()
    )
    title = f"{name} — {count} sites, a report and a poll each every {interval:.0f} s for {seconds:.0f} s ({told})"
    answered = sum(of["count"] for of in kinds.values())
    row = Row(name, OURS, wall, cpu, rss, 0, answered, not any(of["errors"] for of in kinds.values()))
    verdicts = [Verdict(name, f"p99 of {kind} (s)", of["p99"], _P99_SECONDS) for kind, of in kinds.items()]
    verdicts += [Verdict(name, f"errors of {kind}", sum(of["errors"].values()), 0) for kind, of in kinds.items()]
    verdicts += [Verdict(name, f"GET {path} (s)", taken, _PAGE_SECONDS) for path, taken in pages.items()]
    verdicts.append(Verdict(name, "calls to Prefect a minute", calls * 60 / wall, 60))
    return title, [row], verdicts


def workload(_source_kind: str, scale: float) -> Result:
    """Measure ten thousand sites; for a quick look fewer, and for a shorter time."""
    if scale < 1:
        return run(200, 10.0, 10.0)
    return run(10_000)


def workload_small(_source_kind: str, scale: float) -> Result:
    """Measure a thousand sites."""
    return run(1000) if scale == 1 else run(100, 10.0, 10.0)


def load(running: Centre, count: int, seconds: float, interval: float) -> dict[str, Any]:
    """Let the fleet call, from a process of its own, and return its figures."""
    order = {"port": running.port, "count": count, "interval": interval, "seconds": seconds, "has_polls": True}
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.fleet_load"],
        input=json.dumps(order),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=_PROJECT,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


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
