"""Verdicts and how they are shown and kept."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.benchmarks.copiers import OURS
from tests.benchmarks.measure import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULT: Final = Path(__file__).resolve().parents[2] / "build" / "bench.json"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure held against its target; smaller is better."""

    workload: str
    what: str
    measured: float
    limit: float

    @property
    def is_met(self) -> bool:
        """Whether the target is met."""
        return self.measured <= self.limit

    def line(self) -> str:
        """Say it in a line."""
        word = "met" if self.is_met else "MISSED"
        return f"  {self.what:58}{self.measured:>12,.2f}   target ≤ {self.limit:>12,.2f}   {word}"


def median_row(rows: Sequence[Row]) -> Row:
    """Return the median of each figure over the rounds of one workload and copier."""
    first = rows[0]
    return Row(
        workload=first.workload,
        copier=first.copier,
        wall=statistics.median(row.wall for row in rows),
        cpu=statistics.median(row.cpu for row in rows),
        rss=int(statistics.median(row.rss for row in rows)),
        source_bytes=int(statistics.median(row.source_bytes for row in rows)),
        source_requests=int(statistics.median(row.source_requests for row in rows)),
        is_done=all(row.is_done for row in rows),
    )


def fastest_peer(rows: Iterable[Row]) -> Row | None:
    """Return the fastest of the peers that did the work."""
    return min((row for row in rows if row.copier != OURS and row.is_done), key=lambda row: row.wall, default=None)


def ours_of(rows: Iterable[Row]) -> Row:
    """Return our row."""
    return next(row for row in rows if row.copier == OURS)


def show(title: str, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> None:
    """Print one workload: every copier, as it is and as a ratio of ours to it, then the targets."""
    print(f"\n{title}", flush=True)
    if not rows:  # it could not be measured, and the title says why
        return
    ours = ours_of(rows)
    for row in sorted(rows, key=lambda row: row.wall):
        ratios = (
            ""
            if row.copier == OURS
            else f"   ours ÷ it: wall {_ratio(ours.wall, row.wall)}, CPU {_ratio(ours.cpu, row.cpu)}"
        )
        label = row.copier if row is ours or row.copier != OURS else row.workload
        print(
            f"  {label:18}{row.wall:8.2f} s{row.cpu:7.2f} s CPU{row.rss / 1e6:7.0f} MB"
            f"{row.source_bytes / 1e6:10.2f} MB from source{row.source_requests:6} requests"
            f"{'' if row.is_done else '   NOT DONE'}{ratios}"
        )
    for verdict in verdicts:
        print(verdict.line(), flush=True)


def save(rows: Iterable[Row]) -> None:
    """Keep the medians as JSON, one object per workload and copier."""
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def _ratio(ours: float, other: float) -> str:
    return f"{ours / other:.2f}" if other else "–"
