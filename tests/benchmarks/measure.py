"""One measurement: a copier, a source behind a link, an empty target."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.registry.client import HttpRegistry
from tests.fixtures_registry import RunningRegistry, run_cncf, run_embedded, run_zot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.benchmarks.copiers import Commands
    from tests.benchmarks.corpus import Image

_PROJECT: Final = Path(__file__).resolve().parents[2]
_STARTERS: Final = {"cncf": run_cncf, "zot": run_zot, "embedded": run_embedded}
_PROGRAMS: Final = {"cncf": "registry", "zot": "zot"}


@dataclass(frozen=True, slots=True)
class Row:
    """What one run of a copier came to; the median of the rounds in the end."""

    workload: str
    copier: str
    wall: float
    """seconds"""
    cpu: float
    """seconds, user and system, of the copier's processes alone"""
    rss: int
    """bytes, peak of the largest single process"""
    source_bytes: int
    """From the source, by the link's count: HTTP heads and bodies."""
    source_requests: int
    is_done: bool = True
    """Whether the target ended with every tag at the right digest."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to a run besides its link."""

    kill_after_seconds: float | None = None
    """When everything that runs is ended by ``kill -9``, once."""
    tries: int = 1
    """Of each command."""
    limit_seconds: float = 300.0


def has_registry(kind: str) -> bool:
    """Tell whether a registry of this kind can be started here."""
    return kind not in _PROGRAMS or shutil.which(_PROGRAMS[kind]) is not None


@contextmanager
def registry(kind: str) -> Iterator[RunningRegistry]:
    """Run a registry on an empty folder, which goes with it."""
    with (
        tempfile.TemporaryDirectory(prefix=f"harbor-satellite-bench-{kind}-", ignore_cleanup_errors=True) as folder,
        _STARTERS[kind](Path(folder, "registry")) as running,
    ):
        yield running


def run(commands: Commands, trouble: Trouble, log: Path) -> dict[str, float]:
    """Run commands and return what they took; see ``run_commands``."""
    order = {
        "commands": commands.commands,
        "parallel": commands.parallel,
        "tries": trouble.tries,
        "limit_seconds": trouble.limit_seconds,
        "kill_after_seconds": trouble.kill_after_seconds,
        "log": str(log),
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HARBOR_SATELLITE_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.run_commands"],
        input=json.dumps(order),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=_PROJECT,
        env=environment,
    )
    outcome: dict[str, float] = json.loads(done.stdout)
    return outcome


def holds(target: str, images: Sequence[Image]) -> bool:
    """Tell whether a registry has every tag at its digest."""
    with HttpRegistry(f"http://{target}") as opened:
        heads = ((image, opened.manifest_head(image.repository, image.tag)) for image in images)
        return all(head is not None and head.digest == image.digest for image, head in heads)
