"""Pulling through a host's container runtimes, as those who use them do: what comes, how fast, or why not.

Everything is bounded in time, and nothing stays: Podman gets a storage of its own for it, of the others exactly those
names are removed that were not there before.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.host_config.rendered import OWN_NAME
from harbor_satellite.oci.reference import DOCKER_HUB

if TYPE_CHECKING:
    from harbor_satellite.satellite.runtime_sample import Sample

PULL_SECONDS: Final = 30.0
_OTHER_SECONDS: Final = 20.0
_REASON_MAX_LENGTH: Final = 400  # characters of a runtime's own words
_CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"
_CRIO_SOCKET: Final = "/run/crio/crio.sock"
_KUBERNETES: Final = "k8s.io"
"""containerd's namespace of the CRI."""
_ROOMY: Final = "/var/tmp"  # noqa: S108  (mkdtemp makes a folder of our own; /tmp may be memory)
_OWN_NAMESPACE: Final = "harbor-satellite-verify"
_ID: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PullResult:
    """What became of one pull."""

    runtime: str
    image: str
    seconds: float = 0.0
    problem: str = ""
    """Why it failed, or could not be tried; empty: it worked."""
    is_tried: bool = True
    through: str = ""
    """Who served it, as far as this can be told."""
    note: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether it worked."""
        return not self.problem


class _CannotTryError(HarborSatelliteError):
    """There is no program to ask the runtime with."""


class _PullError(HarborSatelliteError):
    """The runtime did not pull; the message is its own."""


def names_to_try(runtime: str, registries: tuple[str, ...], sample: Sample) -> tuple[str, ...]:
    """Return the registries' names by which a runtime should get the sample from the local registry."""
    is_one_word = "/" not in sample.repository  # at Docker Hub that means library/…, which is another one here
    mirrored = [
        one
        for one in registries
        if not (one == DOCKER_HUB and is_one_word) and (runtime != "docker" or one == DOCKER_HUB)
    ]
    return (OWN_NAME, *mirrored)


class Puller:
    """Pulls through the runtimes of this host.

    Args:
        hosts_folder: containerd's ``config_path``.
        seconds: how long one pull may take.
    """

    def __init__(self, hosts_folder: str, seconds: float = PULL_SECONDS) -> None:
        self._hosts_folder = hosts_folder
        self._seconds = seconds
        self._ways = {
            "containerd": self._containerd,
            "crio": self._crio,
            "podman": self._podman,
            "docker": self._docker,
        }

    def pull(self, runtime: str, registry: str, sample: Sample) -> PullResult:
        """Pull the sample by a registry's name, and remove it again.

        Args:
            runtime: whose name ``host_config.runtimes`` knows.
            registry: by whose name to pull.
            sample: what.
        """
        image = f"{registry}/{sample.repository}{sample.reference}"
        started = time.monotonic()
        try:
            note = self._ways[runtime](image, sample)
        except _CannotTryError as error:
            return PullResult(runtime, image, problem=str(error), is_tried=False)
        except _PullError as error:
            return PullResult(runtime, image, round(time.monotonic() - started, 2), str(error))
        through = "the local registry" if sample.is_only_here else "whom is not known: the local registry takes no tag"
        return PullResult(runtime, image, round(time.monotonic() - started, 2), through=through, note=note)

    def _containerd(self, image: str, sample: Sample) -> str:
        ctr = _program("ctr", "containerd")
        address = os.environ.get("CONTAINERD_ADDRESS") or _CONTAINERD_SOCKET
        _check_socket(address, "containerd")
        crictl = shutil.which("crictl")
        if crictl is None:
            return self._by_ctr([ctr, "--address", address], image)
        own = [ctr, "--address", address, "--namespace", _KUBERNETES, "images"]
        before = set(_said([*own, "ls", "-q"]).split())
        added = {image, f"{image.removesuffix(sample.reference)}@{sample.digest}"}
        try:
            said = self._pull([*self._crictl(crictl, address), "pull", image])
            added |= set(_ID.findall(said)[-1:])  # containerd also names an image by its id
        finally:
            # Not by `crictl rmi`, which removes all names of an image that has another one already.
            here = set(_said([*own, "ls", "-q"]).split())
            if gone := sorted((added & here) - before):
                _said([*own, "rm", "--sync", *gone])
        return ""

    def _by_ctr(self, ctr: list[str], image: str) -> str:
        """Pull without the CRI: the hosts' files are put to the test, ``config_path`` is not."""
        own = [*ctr, "--namespace", _OWN_NAMESPACE]
        _said([*ctr, "namespaces", "ls", "-q"])  # tells who may not, before anything is pulled
        try:
            self._pull([*own, "content", "fetch", "--hosts-dir", self._hosts_folder, image])
        finally:
            for words in ([*own, "images", "rm", "--sync", image], [*ctr, "namespaces", "rm", _OWN_NAMESPACE]):
                with contextlib.suppress(_CannotTryError):
                    _said(words)
        return "by ctr with --hosts-dir: install crictl to see containerd's own config_path at work"

    def _crio(self, image: str, _sample: Sample) -> str:
        crictl = self._crictl(_program("crictl", "CRI-O"), _CRIO_SOCKET)
        _check_socket(_CRIO_SOCKET, "CRI-O")
        is_known = image in _said([*crictl, "images", "--output", "json"])
        try:
            self._pull([*crictl, "pull", image])
        finally:
            if not is_known:
                with contextlib.suppress(_CannotTryError):
                    _said([*crictl, "rmi", image])  # CRI-O takes away the one name, and the image with its last
        return ""

    def _podman(self, image: str, _sample: Sample) -> str:
        podman = _program("podman", "podman")
        folder = tempfile.mkdtemp(prefix="harbor-satellite-verify-", dir=_ROOMY)
        own = [podman, "--storage-driver", "vfs", "--events-backend", "none"]
        own += [word for name in ("root", "runroot", "tmpdir") for word in (f"--{name}", f"{folder}/{name}")]
        try:
            self._pull([*own, "pull", "--quiet", image])
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if Path(folder).exists():  # files of other users of our user namespace
                with contextlib.suppress(_CannotTryError):
                    _said([podman, "unshare", "rm", "-rf", folder])
        return ""

    def _docker(self, image: str, _sample: Sample) -> str:
        docker = _program("docker", "docker")
        before = _said([docker, "images", "--all", "--quiet", "--no-trunc"]).split()
        known = [docker, "image", "inspect", "--format", "{{.Id}} {{len .RepoTags}}", image]
        is_known = _run(known, _OTHER_SECONDS)[0] == 0
        self._pull([docker, "pull", "--quiet", image])
        identity, _, tags = _said(known).strip().partition(" ")
        if identity in before and tags == "1" and not is_known:
            return "it was here without a name: the new one stays, since Docker removes an image with its last name"
        if not is_known:
            _said([docker, "image", "rm", image])
        return ""

    def _crictl(self, program: str, address: str) -> list[str]:
        return [program, "--runtime-endpoint", f"unix://{address}", "--timeout", f"{self._seconds:.0f}s"]

    def _pull(self, command: list[str]) -> str:
        status, said, problem = _run(command, self._seconds)
        if status is None:
            raise _PullError(f"nothing within {self._seconds:g} s{problem and ': '}{problem}")
        if status:
            raise _PullError(problem or f"exit {status}")
        return said


def _program(name: str, runtime: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise _CannotTryError(f"there is no program {name} to ask {runtime} with")
    return found


def _check_socket(path: str, runtime: str) -> None:
    """Find out at once what the programs need ten seconds for."""
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(_OTHER_SECONDS)
            channel.connect(path)
    except OSError as error:
        raise _CannotTryError(f"{runtime} does not answer at {path}: {error.strerror or error}") from error


def _said(command: list[str]) -> str:
    """Return what a command prints that has nothing to do with registries."""
    status, said, problem = _run(command, _OTHER_SECONDS)
    if status != 0:
        raise _CannotTryError(problem or f"{command[0]} does not answer")
    return said


def _run(command: list[str], seconds: float) -> tuple[int | None, str, str]:
    """Run a command; return its status (None: it took too long), its output, and the last line of its troubles."""
    try:
        process = subprocess.Popen(  # noqa: S603  (a fixed command; names are checked references)
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise _CannotTryError(f"cannot start {command[0]}: {error.strerror}") from error
    with process:
        try:
            said, troubles = process.communicate(timeout=seconds)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            said, troubles = process.communicate()
            status = None
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    lines = troubles.decode(errors="replace").strip().splitlines()
    return status, said.decode(errors="replace"), lines[-1].strip()[-_REASON_MAX_LENGTH:] if lines else ""
