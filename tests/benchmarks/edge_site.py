"""A site in the environment that a site's image has, as a host of its own, and what its processes take there."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from harbor_satellite.processes import Child
from tests.acceptance.centre import wait_until
from tests.acceptance.edge_site import EdgeSite

if TYPE_CHECKING:
    from tests.acceptance.centre import Centre

PYTHON: Final = Path(__file__).resolve().parents[2] / ".tools" / "edge" / "bin" / "python"
_PROGRAM: Final = PYTHON.with_name("harbor-satellite")
_HURRY: Final = ("POLL_INTERVAL_SECONDS", "REPORT_INTERVAL_SECONDS", "JITTER_SECONDS")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024


def missing() -> str:
    """Say what this machine lacks for a site as a host of its own; empty: nothing."""
    if not _PROGRAM.exists():
        return "no environment with prefect-client: `make edge-environment` makes it"
    programs = [program for program in ("ip", "nft", "tc", "sysctl") if not shutil.which(program)]
    if os.geteuid() != 0 or programs:
        return f"network namespaces need root{''.join(f', and {one}' for one in programs)}"
    return ""


class SmallSite(EdgeSite):
    """`edge run` on `prefect-client`, with every setting at its default that is not where things are."""

    def __init__(self, name: str, folder: Path, centre: Centre, host: Any) -> None:
        super().__init__(name, folder, centre, host)
        for setting in _HURRY:
            del self.settings[setting]

    def start(self, token: str = "") -> Child:
        """Start the site; with a token if it has none yet."""
        env = {f"HARBOR_SATELLITE_{key}": value for key, value in self.settings.items()}
        env["HARBOR_SATELLITE_TOKEN"] = token
        # In its own folder: in the checkout's, Python would take the modules there, and not the installed ones.
        argv = (*self.host.prefix, "env", "-C", str(self.folder), str(_PROGRAM), "edge", "run")
        self._child = Child("edge", argv, env=env, log=self.folder / "edge.log")
        return self._child

    @property
    def agent_pids(self) -> tuple[int, int]:
        """Of the supervisor and the agent."""
        return self.pid, self.service("agent")["pid"]

    def wait_polling(self) -> None:
        """Wait until the agent's worker has polled, from when on it is warm."""
        url = f"{self.centre.prefect_url}/work_pools/satellite-{self.name}/workers/filter"

        def is_online() -> bool:
            found = httpx.post(url, json={}, timeout=30.0, trust_env=False)
            return found.is_success and any(worker["status"] == "ONLINE" for worker in found.json())

        wait_until(is_online, bool, "the worker to be online")


@dataclass(frozen=True, slots=True)
class Taken:
    """What processes hold at a moment, and have used so far."""

    at: float
    """Monotonic seconds."""
    cpu_seconds: float
    rss_bytes: int
    pss_bytes: int
    """As RSS, with each page that several processes share counted once among them."""
    down_bytes: int
    """Over the link, to the site."""
    up_bytes: int

    @property
    def crossed_bytes(self) -> int:
        """In both directions."""
        return self.down_bytes + self.up_bytes


def look(site: EdgeSite, pids: tuple[int, ...]) -> Taken:
    """Return what these processes of a site hold and have used."""
    down, up = site.host.crossed_bytes()
    memory = [_memory(pid) for pid in pids]
    return Taken(
        time.monotonic(),
        sum(map(_cpu_seconds, pids)),
        sum(rss for rss, _ in memory),
        sum(pss for _, pss in memory),
        down,
        up,
    )


@dataclass(slots=True)
class Spent:
    """What was used between two looks."""

    before: Taken
    after: Taken
    wall: float = field(init=False)
    cpu: float = field(init=False)
    down: int = field(init=False)
    up: int = field(init=False)

    def __post_init__(self) -> None:
        self.wall = self.after.at - self.before.at
        self.cpu = self.after.cpu_seconds - self.before.cpu_seconds
        self.down = self.after.down_bytes - self.before.down_bytes
        self.up = self.after.up_bytes - self.before.up_bytes

    @property
    def crossed(self) -> int:
        """Bytes in both directions."""
        return self.down + self.up

    def per_second(self, what: float) -> float:
        """Return a rate."""
        return what / self.wall


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime, stime


def _memory(pid: int) -> tuple[int, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Rss:", "Pss:"))}
    return kib["Rss"] * _KIB, kib["Pss"] * _KIB
