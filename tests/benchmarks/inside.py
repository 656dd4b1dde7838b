"""Workloads inside one warm process: no start of Python is in their times, and no peer can do them.

Each runs in a process of its own, so that memory is that workload's alone.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.state.artifact import StateArtifact, StateEntry
from harbor_satellite.state.desired import LocalTag, merge_states
from harbor_satellite.state.names import group_name
from harbor_satellite.state.plan import plan_replication
from tests.benchmarks import corpus, edge, fleet, fleet_publish
from tests.benchmarks.copiers import OURS
from tests.benchmarks.measure import Row
from tests.benchmarks.table import Verdict
from tests.benchmarks.warm_site import WarmSite, warm_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = tuple[str, list[Row], list[Verdict]]
"""Title, rows, verdicts."""

_REPEATS: Final = 5


def run(name: str, source_kind: str, scale: float) -> Result:
    """Run one workload in a new process.

    Args:
        name: a key of ``WORKLOADS``.
        source_kind: the registry to be the source.
        scale: 1, or less for a quick look.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(WORKLOADS[name], source_kind, scale).result()


def small_update(source_kind: str, scale: float) -> Result:
    """Change one layer of one image among a hundred, and let the site follow."""
    count = max(int(100 * scale), 10)
    changed = corpus.layer("small-update", 2 * corpus.MIB)
    with warm_site(source_kind, lambda source: corpus.fill_tiny(source, count)) as site:
        old = site.corpus.images.pop(count // 2)
        with HttpRegistry(f"http://{site.source_host}") as source:
            site.corpus.source = source
            site.corpus.push(old.repository, [(corpus.TWO_PLATFORMS[0], [changed])], is_index=False)
        site.publish(2)
        row = _synced("small-update", site)
    title = f"small-update — one layer of 2 MiB of one image among {count} changes; RTT 50 ms; inside a warm process"
    beyond = row.source_bytes - changed.descriptor.size
    return (
        title,
        [row],
        [
            Verdict(row.workload, "source bytes beyond that layer (KiB)", beyond / 1024, 16),
            Verdict(row.workload, "requests to the source", row.source_requests, 8),
        ],
    )


def no_change(source_kind: str, scale: float) -> Result:
    """Look again when nothing has changed."""
    count = int(1000 * scale)
    with warm_site(source_kind, lambda source: corpus.fill_tiny(source, count)) as site:
        rows = [_synced("no-change", site) for _ in range(_REPEATS)]
    last = rows[-1]
    wall = statistics.median(row.wall for row in rows)
    row = Row(
        "no-change",
        OURS,
        wall,
        statistics.median(row.cpu for row in rows),
        last.rss,
        last.source_bytes,
        last.source_requests,
    )
    title = f"no-change — {count} images, nothing changed; RTT 50 ms, median of {_REPEATS} runs; inside a warm process"
    return (
        title,
        [row],
        [
            Verdict(row.workload, "requests to the source", max(row.source_requests for row in rows), 1),
            Verdict(row.workload, "wall (s), of which 0.05 are the round trip", wall, 0.2),
        ],
    )


def plan(_source_kind: str, scale: float) -> Result:
    """Merge states and plan: a third of the images new, a third changed, a third as they should be."""
    rows, walls = [], {}
    for count in (int(1000 * scale), int(10_000 * scale), int(20_000 * scale)):
        states, present = _decision(count)
        taken = []
        for _ in range(_REPEATS):
            with _measured() as used:
                planned = plan_replication(merge_states(states), present, {})
            taken.append(used["wall"])
        if len(planned.copy) + len(planned.keep) != count:
            raise RuntimeError("the plan forgot an image")
        walls[count] = statistics.median(taken)
        rows.append(Row(f"plan-{count}", OURS, walls[count], used["cpu"], _peak_bytes(), 0, 0))
    small, middle, large = walls
    return (
        "plan — states of so many images merged and planned, nothing else; inside a warm process",
        rows,
        [
            Verdict("plan", f"wall (s) for {middle} images", walls[middle], 0.5),
            Verdict(
                "plan", f"per image, {large} ÷ {small} (linear: 1)", walls[large] / large / (walls[small] / small), 1.5
            ),
        ],
    )


WORKLOADS: Final[dict[str, Callable[[str, float], Result]]] = {
    "small-update": small_update,
    "no-change": no_change,
    "plan": plan,
    "fleet-1000": fleet.workload_small,
    "fleet": fleet.workload,
    "fleet-publish": fleet_publish.workload,
    "edge": edge.workload,
}


def _synced(workload: str, site: WarmSite) -> Row:
    site.line.reset()
    with _measured() as used:
        outcome = site.sync()
    counters = site.line.counters()
    return Row(
        workload=workload,
        copier=OURS,
        wall=used["wall"],
        cpu=used["cpu"],
        rss=_peak_bytes(),
        source_bytes=counters.bytes_to_client,
        source_requests=counters.requests,
        is_done=outcome.is_converged,
    )


@contextmanager
def _measured() -> Iterator[dict[str, float]]:
    """Fill in ``wall`` and ``cpu`` (seconds) when the block ends; peak memory starts anew with it."""
    used: dict[str, float] = {}
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, started = time.process_time(), time.monotonic()
    yield used
    used["wall"], used["cpu"] = time.monotonic() - started, time.process_time() - before


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _decision(count: int) -> tuple[list[StateArtifact], dict[LocalTag, Digest]]:
    digests = [Digest.of(str(number).encode()) for number in range(count)]
    entries = [
        StateEntry(f"bench/image{number:06}", ("v1",), digest, size=1_000_000, referrers=())
        for number, digest in enumerate(digests)
    ]
    halves = (entries[: count // 2], entries[count // 2 :])
    states = [
        StateArtifact(group_name(f"group-{number}"), "https://centre.example", tuple(half), 1)
        for number, half in enumerate(halves)
    ]
    other = Digest.of(b"other")
    present = {
        LocalTag(entry.repository, "v1"): other if number % 3 == 1 else entry.digest
        for number, entry in enumerate(entries)
        if number % 3
    }
    return states, present
