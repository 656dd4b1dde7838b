"""What the site's processes use, sampled while they live: memory, threads, descriptors."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_RSS: Final = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)
_THREADS: Final = re.compile(r"^Threads:\s+(\d+)", re.MULTILINE)
_SETTLED_SECONDS: Final = 180.0
"""After so long a process has loaded what it loads; only what it grows by from then on counts."""


@dataclass(frozen=True)
class Sample:
    """One look at a process."""

    seconds: float
    """Since it was first seen."""
    rss_kilobytes: int
    threads: int
    descriptors: int


@dataclass
class Life:
    """One process from its first sample to its last."""

    name: str
    pid: int
    began: float
    samples: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it was watched."""
        return self.samples[-1].seconds if self.samples else 0.0

    def growth(self) -> tuple[Sample, Sample] | None:
        """Return the first settled sample and the last one; None if it did not live long enough to tell."""
        settled = [sample for sample in self.samples if sample.seconds >= _SETTLED_SECONDS]
        if not settled or settled[-1].seconds - settled[0].seconds < _SETTLED_SECONDS:
            return None
        return settled[0], settled[-1]


class Watch:
    """Keeps the lives of processes by name."""

    def __init__(self) -> None:
        self.lives: list[Life] = []

    def look(self, name: str, pid: int, now: float) -> None:
        """Take a sample of a process, which may be gone already."""
        with contextlib.suppress(OSError, AttributeError):
            status = Path(f"/proc/{pid}/status").read_text()
            rss, threads = _RSS.search(status), _THREADS.search(status)
            if not rss or not threads:  # killed, and not waited for yet
                return
            descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            life = next((life for life in self.lives if (life.name, life.pid) == (name, pid)), None)
            if life is None:
                life = Life(name, pid, now)
                self.lives.append(life)
            life.samples.append(Sample(now - life.began, int(rss[1]), int(threads[1]), descriptors))

    def longest(self, name: str) -> Life | None:
        """Return the longest life of a process of that name."""
        mine = [life for life in self.lives if life.name == name]
        return max(mine, key=lambda life: life.seconds, default=None)
