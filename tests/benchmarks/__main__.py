"""Measure copying a set of images beside every copier found on PATH: `make bench`.

Each copier gets the same source and an empty target of its own, in turns, three rounds; the table shows the
median and its ratio to ours. Machines differ and are noisy: only the ratios of one run mean anything.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harbor_satellite.demo import images
from harbor_satellite.processes import Child, free_port
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.server import run_registry_server

ROUNDS = 3
IMAGES = 12
LAYER_BYTES = 4_000_000
SHARED_BYTES = 20_000_000

Copier = Callable[[str, str, Path], list[list[str]]]
"""(source host, target host, folder) → commands to run one after another."""


def start_registry(folder: Path, name: str) -> tuple[Child, str]:
    host = f"127.0.0.1:{free_port()}"
    argv = [sys.executable, "-m", "tests.benchmarks", "registry", str(folder / name), host]
    child = Child(name, argv, env={}, log=folder / f"{name}.log")
    child.wait_for(f"http://{host}/v2/", 30)
    return child, host


def fill(host: str, folder: Path) -> None:
    with HttpRegistry(host) as source:
        shared = images.layer("shared", SHARED_BYTES)
        artifacts = []
        for number in range(IMAGES):
            repository = f"bench/image{number:02}"
            children = [
                images.push_image(
                    source, repository, platform, [shared, images.layer(f"{number}-{platform}", LAYER_BYTES)]
                )
                for platform in (images.AMD64, images.ARM64)
            ]
            index = images.push_index(source, repository, "v1", children)
            artifacts.append({"repository": repository, "tag": ["v1"], "digest": str(index.digest)})
    state = {"group": "bench", "registry": f"http://{host}", "artifacts": artifacts}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


def ours(_source: str, target: str, folder: Path) -> list[list[str]]:
    code = "from harbor_satellite.cli import main; main()"
    data_dir = tempfile.mkdtemp(dir=folder)
    argv = [sys.executable, "-c", code, "edge", "sync", "--state", str(folder / "state.json")]
    return [[*argv, "--target", f"http://{target}", "--data-dir", data_dir, "--workers", "8"]]


def one_by_one(make: Callable[[str, str], list[str]]) -> Copier:
    def commands(source: str, target: str, _folder: Path) -> list[list[str]]:
        names = [f"bench/image{number:02}:v1" for number in range(IMAGES)]
        return [make(f"{source}/{name}", f"{target}/{name}") for name in names]

    return commands


COPIERS: dict[str, Copier] = {
    "harbor-satellite": ours,
    "crane": one_by_one(lambda source, target: ["crane", "copy", "--insecure", source, target]),
    "oras": one_by_one(
        lambda source, target: ["oras", "cp", "-r", "--from-plain-http", "--to-plain-http", source, target]
    ),
    "skopeo": one_by_one(
        lambda source, target: [
            *["skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"],
            *[f"docker://{source}", f"docker://{target}"],
        ]
    ),
}


def measure(name: str, source: str, folder: Path, turn: int) -> float:
    registry, target = start_registry(folder, f"target-{name}-{turn}")
    try:
        started = time.monotonic()
        for command in COPIERS[name](source, target, folder):
            subprocess.run(command, check=True, capture_output=True)
        return time.monotonic() - started
    finally:
        registry.stop()
        shutil.rmtree(folder / f"target-{name}-{turn}")


def main() -> None:
    found = [name for name in COPIERS if name == "harbor-satellite" or shutil.which(name)]
    print(f"measuring {', '.join(found)}; not on PATH: {', '.join(sorted(COPIERS.keys() - set(found))) or 'none'}")
    with tempfile.TemporaryDirectory(prefix="harbor-satellite-bench-") as name:
        folder = Path(name)
        registry, source = start_registry(folder, "source")
        try:
            fill(source, folder)
            seconds: dict[str, list[float]] = {copier: [] for copier in found}
            for turn in range(ROUNDS):
                for copier in found:
                    seconds[copier].append(measure(copier, source, folder, turn))
        finally:
            registry.stop()
    base = statistics.median(seconds["harbor-satellite"])
    unique = (SHARED_BYTES + 2 * IMAGES * LAYER_BYTES) / 1e6
    print(f"{IMAGES} images of two platforms, {unique:.0f} MB of unique layers, from one empty target to the next")
    for copier in found:
        median = statistics.median(seconds[copier])
        print(f"  {copier:18} median {median:6.2f} s   {median / base:5.2f} × ours")


if __name__ == "__main__":
    if sys.argv[1:2] == ["registry"]:
        run_registry_server(Path(sys.argv[2]), sys.argv[3], None, allow_anonymous_writes=True)
    else:
        main()
