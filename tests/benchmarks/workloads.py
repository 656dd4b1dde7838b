"""The workloads that every copier does, as its user would start it, and what ours is to come to."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.benchmarks import corpus, measure
from tests.benchmarks.copiers import Job, commands
from tests.benchmarks.measure import Row, Trouble
from tests.benchmarks.table import Verdict, fastest_peer, ours_of
from tests.fakes.link import Link, link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harbor_satellite.registry.client import HttpRegistry
    from tests.benchmarks.corpus import Corpus

_LINE_BYTES_PER_SECOND: Final = 12_500_000  # 100 Mbit/s
_RTT_SECONDS: Final = 0.05
_CUTS: Final = 10


@dataclass(frozen=True, slots=True)
class Workload:
    """Images, a line, a target."""

    name: str
    what: str
    fill: Callable[[HttpRegistry], Corpus]
    target: str
    judge: Callable[[Sequence[Row], Corpus], Iterator[Verdict]]
    """Medians of this workload, and of the one it is held against, if any → verdicts."""
    parallel: int = 8
    rounds: int = 3
    rtt_seconds: float = 0.0
    bytes_per_second: int | None = None
    cuts: int = 0
    is_killed: bool = False
    has_peers: bool = True
    options: tuple[str, ...] = field(default=())

    def trouble(self, filled: Corpus) -> Trouble:
        """Return what happens while it runs."""
        if not self.cuts:
            return Trouble()
        floor = filled.unique_bytes / (self.bytes_per_second or _LINE_BYTES_PER_SECOND)
        return Trouble(floor / 2 if self.is_killed else None, tries=20, limit_seconds=60.0 + 2 * floor)


def all_workloads(scale: float) -> tuple[Workload, ...]:
    """Return the workloads; ``scale`` makes them smaller for a quick look."""
    count = max(int(100 * scale), 8)
    wan = Workload(
        name="wan",
        what="RTT 50 ms, 100 Mbit/s: 20 images, 183 MiB unique, into CNCF distribution",
        fill=lambda source: corpus.fill_wan(source, scale),
        target="cncf",
        judge=_judge_wan,
        rounds=1,
        rtt_seconds=_RTT_SECONDS,
        bytes_per_second=_LINE_BYTES_PER_SECOND,
    )
    lan = Workload(
        name="lan",
        what="LAN: 20 images × 2 platforms, 280 layers, into CNCF distribution, 4 at once",
        fill=lambda source: corpus.fill_lan(source, scale),
        target="cncf",
        judge=_judge_lan,
        parallel=4,
    )
    return (
        lan,
        replace(
            lan,
            name="lan-embedded",
            what="the same into the embedded registry (held against peers into CNCF)",
            target="embedded",
            judge=_judge_embedded,
            has_peers=False,
        ),
        replace(lan, name="lan-zot", what="the same into Zot", target="zot"),
        Workload(
            name="latency",
            what=f"RTT 50 ms: {count} tiny images into CNCF distribution, 8 at once",
            fill=lambda source: corpus.fill_tiny(source, count),
            target="cncf",
            judge=_judge_latency,
            rtt_seconds=_RTT_SECONDS,
        ),
        wan,
        replace(
            wan,
            name="wan-cuts",
            what=f"the same with {_CUTS} cuts and one kill -9; each command repeated until it succeeds",
            judge=_judge_cuts,
            cuts=_CUTS,
            is_killed=True,
        ),
        Workload(
            name="platforms",
            what="two of six platforms of one image into the embedded registry",
            fill=lambda source: corpus.fill_platforms(source, scale),
            target="embedded",
            judge=_judge_platforms,
            rounds=1,
            has_peers=False,
            options=tuple(word for platform in corpus.TWO_PLATFORMS for word in ("--platform", str(platform))),
        ),
    )


def run_round(workload: Workload, filled: Corpus, line: Link, copier: str) -> Row:
    """Let one copier do the workload once, into an empty target of its own."""
    trouble = workload.trouble(filled)
    with (
        measure.registry(workload.target) as target,
        tempfile.TemporaryDirectory(prefix="harbor-satellite-job-") as name,
    ):
        job = Job(
            source=line.host,
            target=target.host,
            names=[f"{image.repository}:{image.tag}" for image in filled.images],
            folder=Path(name),
            state=filled.state_json(line.url),
            parallel=workload.parallel,
            options=workload.options,
        )
        line.reset()
        line.cut_at(*(int(filled.unique_bytes * (number + 0.5) / workload.cuts) for number in range(workload.cuts)))
        log = Path(name, "log")
        outcome = measure.run(commands(copier, job), trouble, log)
        counters = line.counters()
        is_done = not outcome["unfinished"] and measure.holds(target.host, filled.images)
        if not is_done:
            print(f"{workload.name}, {copier}: not done; its last words: {log.read_text(errors='replace')[-500:]}")
    return Row(
        workload=workload.name,
        copier=copier,
        wall=outcome["wall"],
        cpu=outcome["cpu"],
        rss=int(outcome["rss"]),
        source_bytes=counters.bytes_to_client,
        source_requests=counters.requests,
        is_done=is_done,
    )


def shaped(workload: Workload, source: str) -> Link:
    """Make the workload's line to a source."""
    return link(source, rtt_seconds=workload.rtt_seconds, bytes_per_second=workload.bytes_per_second)


def _judge_lan(rows: Sequence[Row], _filled: Corpus) -> Iterator[Verdict]:
    ours, peer = ours_of(rows), fastest_peer(rows)
    if peer:
        yield Verdict(ours.workload, f"wall ÷ fastest peer ({peer.copier})", ours.wall / peer.wall, 1.0)
        yield Verdict(ours.workload, f"CPU ÷ that peer's ({peer.copier})", ours.cpu / peer.cpu, 1.3)


def _judge_embedded(rows: Sequence[Row], _filled: Corpus) -> Iterator[Verdict]:
    ours, peer = ours_of(rows), fastest_peer(rows)
    if peer:
        what = f"wall ÷ fastest peer into CNCF distribution ({peer.copier})"
        yield Verdict(ours.workload, what, ours.wall / peer.wall, 0.8)


def _judge_latency(rows: Sequence[Row], _filled: Corpus) -> Iterator[Verdict]:
    ours = ours_of(rows)
    crane = next((row for row in rows if row.copier == "crane"), None)
    if crane:
        yield Verdict(ours.workload, "wall ÷ crane, 8 at once", ours.wall / crane.wall, 0.8)


def _judge_wan(rows: Sequence[Row], filled: Corpus) -> Iterator[Verdict]:
    ours = ours_of(rows)
    floor = filled.unique_bytes / _LINE_BYTES_PER_SECOND
    yield Verdict(ours.workload, f"wall ÷ the line's floor ({floor:.1f} s)", ours.wall / floor, 1.05)


def _judge_cuts(rows: Sequence[Row], filled: Corpus) -> Iterator[Verdict]:
    ours = ours_of(rows)
    yield Verdict(ours.workload, "source bytes ÷ unique bytes", ours.source_bytes / filled.unique_bytes, 1.02)


def _judge_platforms(rows: Sequence[Row], filled: Corpus) -> Iterator[Verdict]:
    ours = ours_of(rows)
    wanted = filled.unique_bytes * len(corpus.TWO_PLATFORMS) / len(corpus.SIX_PLATFORMS)
    yield Verdict(ours.workload, "source bytes ÷ a third of all (its digest is kept)", ours.source_bytes / wanted, 1.01)
