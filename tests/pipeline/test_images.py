"""The images, built by a real engine: what is in them, that they run with nothing writable, and the same digest twice.

The engine is the one that _EXPERIMENTAL_DAGGER_RUNNER_HOST names. PIPELINE_TEST_IMAGES chooses platforms, such as
`linux/riscv64,linux/s390x`; without it, the machine's own is built.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from ci import images
from ci.context import Build, Mirrors
from ci.engine import engine
from ci.manifests import read_archive
from ci.platforms import SATELLITE, parse_platforms
from ci.smoke import smoke
from harbor_satellite import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = Path(__file__).resolve().parents[2]
ENGINE = os.environ.get("_EXPERIMENTAL_DAGGER_RUNNER_HOST", "")
PLATFORMS = parse_platforms([os.environ.get("PIPELINE_TEST_IMAGES", "linux/amd64")], SATELLITE)
BUILD = Build(source=PROJECT, version=__version__, commit="0" * 40, epoch=1_767_225_600, mirrors=Mirrors())

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not ENGINE, reason="NOT TESTED: _EXPERIMENTAL_DAGGER_RUNNER_HOST names no engine"),
]


@dataclass(frozen=True)
class Built:
    """What a run of the engine made."""

    archive: Path
    smoke_seconds: dict[str, float]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    file = tmp_path_factory.mktemp("images") / "satellite.tar"
    seconds: dict[str, float] = {}

    async def make() -> None:
        async with engine(sys.stderr, os.environ):
            for platform in PLATFORMS:
                container = images.container(BUILD, SATELLITE, platform)
                seconds[platform.name] = await smoke(BUILD, SATELLITE, platform, container)
            await images.archive(BUILD, SATELLITE, PLATFORMS).export(str(file))

    anyio.run(make)
    return Built(file, seconds)


@pytest.fixture(scope="module")
def root(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first platform's root file system, unpacked."""
    folder = tmp_path_factory.mktemp("root")
    folder.chmod(0o755)  # as a runtime makes it: pytest's is for its owner only
    with tarfile.open(built.archive) as archive:
        (index,) = json.loads(_read(archive, "index.json"))["manifests"]
        first = json.loads(_read(archive, _blob(index)))["manifests"][0]
        for layer in json.loads(_read(archive, _blob(first)))["layers"]:
            with tarfile.open(fileobj=archive.extractfile(_blob(layer))) as packed:
                packed.extractall(folder, filter="fully_trusted")  # noqa: S202 - ours; other filters take bits from /tmp
    return folder


def _blob(descriptor: Mapping[str, str]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, name
    return file.read()


def test_image_proves_itself_on_each_platform(built: Built) -> None:
    with built.archive.open("rb") as file:
        found = read_archive(file, str(built.archive))

    assert [child.platform for child in found.children] == [platform.name for platform in PLATFORMS]
    assert set(built.smoke_seconds) == {platform.name for platform in PLATFORMS}


def test_image_has_no_shell_no_package_manager_and_nothing_set_user_id(root: Path) -> None:
    programs = {path.name for folder in ("usr/bin", "usr/sbin", "usr/local/bin") for path in (root / folder).glob("*")}

    assert not programs & {"sh", "bash", "dash", "apt", "apt-get", "dpkg", "pip", "gcc", "cc"}
    assert {"python3.13", "harbor-satellite"} <= programs
    assert not [path for path in root.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o6000]


def test_image_has_nothing_of_the_machine_that_built(root: Path) -> None:
    assert not (root / "run/secrets").exists()
    assert not list(root.rglob("direct_url.json"))
    assert not list((root / "tmp").iterdir())


@pytest.mark.skipif(not shutil.which("runc") or os.geteuid() != 0, reason="NOT TESTED: no runc, or not root")
def test_image_runs_with_a_root_file_system_that_nobody_can_write(root: Path, tmp_path: Path) -> None:
    (root / "smoke").mkdir()
    subprocess.run(["runc", "spec"], cwd=tmp_path, check=True)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(_hardened(json.loads(file.read_text()), root)))
    argv = ["runc", "--root", str(tmp_path / "state"), "run", "--bundle", str(tmp_path), f"images-{os.getpid()}"]

    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=900)

    assert done.returncode == 0, done.stderr
    assert "synced sha256:" in done.stdout


def _hardened(spec: dict[str, Any], root: Path) -> dict[str, Any]:
    """What `runc spec` wrote, with the image's config: only /tmp can be written, and nothing may be done as root."""
    config = images.config(BUILD, SATELLITE, PLATFORMS[0])["config"]
    user = int(config["User"].partition(":")[0])
    process = {
        "user": {"uid": user, "gid": user},
        "args": ["python3", "/smoke/smoke.py", SATELLITE, __version__],
        "env": config["Env"],
        "cwd": config["WorkingDir"],
        "noNewPrivileges": True,
    }
    mounts = [mount for mount in spec["mounts"] if mount["type"] != "cgroup"]
    # The agent keeps a reserve on its disk: a small one would be full from the start.
    mounts.append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", "size=4g"]})  # noqa: S108
    scripts = str(PROJECT / "ci/inside")
    mounts.append({"destination": "/smoke", "type": "bind", "source": scripts, "options": ["bind", "ro"]})
    namespaces = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]
    return {
        **spec, "process": process, "root": {"path": str(root), "readonly": True}, "mounts": mounts,
        "linux": {"namespaces": namespaces},
    }  # fmt: skip
