"""Measure replication beside every copier found on PATH: ``make bench``, about ten minutes.

Variables: ``BENCH_ONLY=lan,wan`` (some workloads), ``BENCH_ROUNDS=1`` (at most so many rounds), ``BENCH_QUICK=1``
(an eighth of the bytes, one round: only to see that it runs).
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from harbor_satellite.registry.client import HttpRegistry
from tests.benchmarks import inside, measure
from tests.benchmarks.copiers import OURS, found_peers
from tests.benchmarks.table import Verdict, median_row, save, show
from tests.benchmarks.workloads import Workload, all_workloads, run_round, shaped

if TYPE_CHECKING:
    from tests.benchmarks.corpus import Corpus
    from tests.benchmarks.measure import Row

HEAD: Final = """\
What is measured. Every copier brings the same images from the same source ({source}) to an empty target of its own,
in turns; shown is the median of the rounds. Between them and the source stands a TCP proxy that counts bytes and
requests and, where it is said, has the latency and width of a WAN; it, the registries and the copiers share this
machine's {cores} cores and its disk. Ours is one `harbor-satellite edge sync` process from its start to its end,
Python's start included, unless a line says otherwise; crane, oras and skopeo are one process per image, as many at
once as ours has images under way; regsync is one process. CPU is that of the copier's processes alone, memory that
of the largest of them. Machines differ and are noisy: only the ratios of one run mean anything.
"""


class Bench:
    """What was asked for, and what came of it."""

    def __init__(self) -> None:
        self.is_quick = bool(os.environ.get("BENCH_QUICK"))
        self.only = {name for name in os.environ.get("BENCH_ONLY", "").split(",") if name}
        self.max_rounds = 1 if self.is_quick else int(os.environ.get("BENCH_ROUNDS") or 3)
        self.scale = 0.125 if self.is_quick else 1.0
        self.peers = found_peers()
        self.source_kind = "cncf" if measure.has_registry("cncf") else "embedded"
        self.rows: list[Row] = []
        self.verdicts: list[Verdict] = []
        self._filled: dict[object, tuple[str, Corpus]] = {}

    def is_asked(self, name: str) -> bool:
        """Tell whether a workload is to be run."""
        return not self.only or name in self.only

    def run(self) -> None:
        """Run everything that is asked for, and show it as it comes."""
        print(HEAD.format(source=self.source_kind, cores=os.cpu_count()))
        print("copiers: " + ", ".join([OURS, *(f"{name} {version}" for name, version in self.peers.items())]))
        with ExitStack() as stack:
            for workload in all_workloads(self.scale):
                if not self.is_asked(workload.name):
                    continue
                if not measure.has_registry(workload.target):
                    print(f"\nNOT MEASURED: {workload.what}: no such registry on PATH")
                    continue
                self._measure(workload, stack)
        for name in filter(self.is_asked, inside.WORKLOADS):
            self._keep(*inside.run(name, self.source_kind, self.scale))

    def _measure(self, workload: Workload, stack: ExitStack) -> None:
        host, filled = self._fill(workload, stack)
        copiers = [OURS, *(self.peers if workload.has_peers else ())]
        rounds: dict[str, list[Row]] = {copier: [] for copier in copiers}
        with shaped(workload, host) as line:
            for _ in range(min(workload.rounds, self.max_rounds)):
                for copier in copiers:
                    rounds[copier].append(run_round(workload, filled, line, copier))
        rows = [median_row(each) for each in rounds.values()]
        # Where peers cannot do the same, the first workload's are what ours is held against.
        others = [row for row in self.rows if row.workload == "lan" and row.copier != OURS]
        verdicts = list(workload.judge(rows if workload.has_peers else [*rows, *others], filled))
        sizes = f"{filled.unique_bytes / 2**20:.0f} MiB unique, {filled.counted_bytes / 2**20:.0f} MiB image by image"
        self._keep(f"{workload.name} — {workload.what} ({sizes})", rows, verdicts)

    def _fill(self, workload: Workload, stack: ExitStack) -> tuple[str, Corpus]:
        code = workload.fill
        if code not in self._filled:
            source = stack.enter_context(measure.registry(self.source_kind))
            with HttpRegistry(source.url) as opened:
                self._filled[code] = source.host, code(opened)
        return self._filled[code]

    def _keep(self, title: str, rows: list[Row], verdicts: list[Verdict]) -> None:
        show(title, rows, verdicts)
        self.rows += rows
        self.verdicts += verdicts
        save(self.rows)


def main() -> None:
    """Run the benchmarks."""
    started = time.monotonic()
    bench = Bench()
    bench.run()
    met = sum(verdict.is_met for verdict in bench.verdicts)
    print(f"\n{met} of {len(bench.verdicts)} targets met; it took {(time.monotonic() - started) / 60:.1f} minutes")
    print("rows: build/bench.json")


if __name__ == "__main__":
    main()
