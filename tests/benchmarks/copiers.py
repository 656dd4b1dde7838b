"""The copiers: how each is told to bring a set of images from one registry to another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OURS: Final = "harbor-satellite"
_VERSIONS: Final = {"crane": "version", "oras": "version", "regsync": "version", "skopeo": "--version"}


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be copied, and how."""

    source: str
    """host:port, of the link"""
    target: str
    """host:port"""
    names: Sequence[str]
    """repository:tag of every image"""
    folder: Path
    """For files of this job alone; empty at the start."""
    state: bytes
    """The same images as a group's state."""
    parallel: int
    """Images on their way at once."""
    options: tuple[str, ...] = ()
    """More options of ours."""


@dataclass(frozen=True, slots=True)
class Commands:
    """What to run for a job, and how many at once."""

    commands: list[list[str]]
    parallel: int


def ours(job: Job) -> Commands:
    """One process, as a user starts it."""
    state = job.folder / "state.json"
    state.write_bytes(job.state)
    program = str(Path(sys.executable).parent / OURS)
    command = [program, "edge", "sync", "--state", str(state), "--target", f"http://{job.target}"]
    command += ["--data-dir", str(job.folder / "data"), "--workers", str(job.parallel), *job.options]
    return Commands([command], 1)


def _crane(source: str, target: str) -> list[str]:
    return ["crane", "copy", "--insecure", source, target]


def _oras(source: str, target: str) -> list[str]:
    return ["oras", "cp", "--no-tty", "--from-plain-http", "--to-plain-http", source, target]


def _skopeo(source: str, target: str) -> list[str]:
    options = ["--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"]
    return ["skopeo", "--insecure-policy", "copy", *options, f"docker://{source}", f"docker://{target}"]


def _one_by_one(make: Callable[[str, str], list[str]]) -> Callable[[Job], Commands]:
    def commands(job: Job) -> Commands:
        pairs = [make(f"{job.source}/{name}", f"{job.target}/{name}") for name in job.names]
        return Commands(pairs, job.parallel)

    return commands


def _regsync(job: Job) -> Commands:
    # JSON is YAML. Its own limit of three requests at once to a registry would hold it back.
    hosts = (job.source, job.target)
    document = {
        "version": 1,
        "creds": [{"registry": host, "tls": "disabled", "reqConcurrent": 2 * job.parallel} for host in hosts],
        "defaults": {"parallel": job.parallel},
        "sync": [
            {"source": f"{job.source}/{name}", "target": f"{job.target}/{name}", "type": "image"} for name in job.names
        ],
    }
    config = job.folder / "regsync.yml"
    config.write_text(json.dumps(document), encoding="utf-8")
    return Commands([["regsync", "once", "-c", str(config)]], 1)


PEERS: Final[dict[str, Callable[[Job], Commands]]] = {
    "crane": _one_by_one(_crane),
    "oras": _one_by_one(_oras),
    "regsync": _regsync,
    "skopeo": _one_by_one(_skopeo),
}


def found_peers() -> dict[str, str]:
    """Return the peers on PATH, each with the version that it says it is."""
    return {name: _version(name) for name in PEERS if shutil.which(name)}


def commands(copier: str, job: Job) -> Commands:
    """Return what a copier, ours or a peer, has to be told."""
    return ours(job) if copier == OURS else PEERS[copier](job)


def _version(name: str) -> str:
    said = subprocess.run([name, _VERSIONS[name]], capture_output=True, text=True, check=False).stdout
    words = said.replace("\n", " ").split()
    return next((word for word in words if word.lstrip("v")[:1].isdigit()), "unknown")
