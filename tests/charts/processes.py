"""Containers of a manifest as processes of this machine: their commands, variables, files and confinement, no image.

Each runs in a mount namespace of its own, where the root file system is read-only but for what the manifest mounts, as
the user of the image and without any capability. The network is this machine's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USER = 65532
_BIN = Path(sys.executable).parent
# What the image sets, and every container therefore has.
_IMAGE_ENVIRONMENT = {"PATH": f"{_BIN}:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/var/lib/harbor-satellite"}
_READY_SECONDS = 240.0  # a busy machine; the probes of the chart allow as much
_CONFINED = """
set -eu
mount --make-rprivate /
# The interpreter may stand below somebody's home, into which the container's user may not look.
if [ -n "$CLOSED" ]; then
    mount --bind "$PYTHON" "$STAGE/python"
    mount -t tmpfs -o mode=0755 none "$CLOSED"
    mkdir -p "$PYTHON"
    mount --bind "$STAGE/python" "$PYTHON"
fi
[ -z "$SOCKETS" ] || mount --bind "$SOCKETS" "$STAGE/sockets"
mount --rbind "$STAGE" /mnt
for place in $MOUNTS; do mkdir -p "$place"; mount --rbind "/mnt/mounts$place" "$place"; done
if [ -n "$SOCKETS" ]; then mkdir -p "$SOCKETS"; mount --bind /mnt/sockets "$SOCKETS"; fi
umount -l /mnt
mount -o remount,bind,ro /
unset CLOSED PYTHON STAGE SOCKETS MOUNTS
exec setpriv --reuid=$RUN_AS --regid=$RUN_AS --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
    env --unset=RUN_AS -- "$@"
"""


@dataclass(frozen=True)
class Container:
    """What a manifest says of one container."""

    name: str
    argv: tuple[str, ...]
    """With the image's entrypoint, if the manifest has none of its own."""
    env: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    """Path → content of the secrets that are mounted."""
    scratch: tuple[str, ...] = ()
    """Folders that it may write to."""
    ready_path: str = ""
    """Of its readiness probe; empty: it ends by itself."""
    port: int = 0


class Running:
    """Containers under way; ended together."""

    def __init__(self, folder: Path, sockets: Path | None) -> None:
        self._folder = folder
        self._sockets = sockets
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, container: Container) -> None:
        """Run one to its end, which must be a good one."""
        self.start(container)
        code = self._processes.pop(container.name).wait(_READY_SECONDS)
        assert code == 0, f"{container.name} ended with {code}: {self.log(container.name)}"

    def start(self, container: Container) -> None:
        stage = self._stage(container)
        closed = next((each for each in reversed(Path(sys.base_prefix).parents) if not each.stat().st_mode & 0o001), "")
        setting = {
            "CLOSED": str(closed),
            "PYTHON": sys.base_prefix,
            "STAGE": str(stage),
            "SOCKETS": str(self._sockets or ""),
            "MOUNTS": " ".join(sorted(_mounts(container))),
            "RUN_AS": str(USER),
        }
        program = shutil.which(container.argv[0], path=_IMAGE_ENVIRONMENT["PATH"])
        assert program, f"{container.name} starts {container.argv[0]}, which there is not"
        with (self._folder / f"{container.name}.log").open("wb") as log:
            self._processes[container.name] = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _CONFINED, "sh", program, *container.argv[1:]],
                env={**_IMAGE_ENVIRONMENT, **container.env, **setting},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, container: Container) -> httpx.Response:
        """Wait for its readiness probe as the kubelet does; return the good answer."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            code = self._processes[container.name].poll()
            assert code is None, f"{container.name} ended with {code}: {self.log(container.name)}"
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"http://127.0.0.1:{container.port}{container.ready_path}", timeout=5)
                if answer.is_success:
                    return answer
            time.sleep(0.2)
        pytest.fail(f"{container.name} was not ready within {_READY_SECONDS} s: {self.log(container.name)}")

    def rss_bytes(self, name: str) -> int:
        """Return what a container's process holds in memory."""
        status = Path(f"/proc/{self._processes[name].pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def status_of(self, name: str) -> Mapping[str, str]:
        """Return the kernel's word on a container's process: its user and capabilities."""
        lines = Path(f"/proc/{self._processes[name].pid}/status").read_text(encoding="ascii").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def stop(self) -> None:
        """End all, the last one first, as the kubelet does: SIGTERM, and SIGKILL if that is not heard."""
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _stage(self, container: Container) -> Path:
        stage = self._folder / container.name
        for name in ("python", "sockets", "mounts"):
            (stage / name).mkdir(parents=True)
        for place in container.scratch:
            folder = stage / "mounts" / place.lstrip("/")
            folder.mkdir(parents=True)
            os.chown(folder, USER, USER)
        for path, content in container.files.items():
            file = stage / "mounts" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
            os.chown(file, USER, USER)
            file.chmod(0o440)
        return stage


@contextlib.contextmanager
def running(sockets: Path | None = None) -> Iterator[Running]:
    """Run containers; all are ended with the block. Skips the test, saying why, where they cannot be confined.

    Args:
        sockets: a folder of this machine that all of them see, for a database that listens there.
    """
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("containers as processes: needs root, unshare and setpriv")
    if subprocess.run(["unshare", "--mount", "mount", "--make-rprivate", "/"], check=False).returncode:
        pytest.skip("containers as processes: no mount namespace can be made here")
    with tempfile.TemporaryDirectory(prefix="hs-pods-", dir="/var/tmp") as name:
        Path(name).chmod(0o711)
        under_way = Running(Path(name), sockets)
        try:
            yield under_way
        finally:
            under_way.stop()


def _mounts(container: Container) -> set[str]:
    return {*container.scratch, *(str(Path(path).parent) for path in container.files)}
