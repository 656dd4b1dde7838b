"""How a site starts where its disk is read-only: what is there is served, else the error says what and where."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from harbor_satellite.demo import images
from harbor_satellite.edge.registry_service import refresh_plan
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.settings import SatelliteSettings
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# In a mount namespace of its own, which goes with its last process.
_READ_ONLY = 'mount -t tmpfs none "$0" && cp -a "$1/." "$0" && mount -o remount,ro "$0" && shift && exec "$@"'
_RUN = "from harbor_satellite.cli import main; main()"
_WAIT_SECONDS = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("NOT TESTED: no mount namespaces for this user")
    found = tmp_path / "data"
    found.mkdir(mode=0o700)
    return found


@contextlib.contextmanager
def run_read_only(folder: Path, content: Path, listen: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a site whose folder holds a content, and nobody can write to; its log is ``log`` beside the folder."""
    command = [sys.executable, "-c", _RUN, "edge", "run", "--ground-control", "http://127.0.0.1:1"]
    environment = {"PATH": "/usr/bin:/bin", "HARBOR_SATELLITE_DATA_DIR": str(folder), "HARBOR_SATELLITE_ENV_FILE": ""}
    environment |= {"HARBOR_SATELLITE_REGISTRY_KIND": "embedded", "HARBOR_SATELLITE_REGISTRY_LISTEN": listen}
    environment |= {"HARBOR_SATELLITE_STATUS_LISTEN": "", "HARBOR_SATELLITE_TOKEN": "made-up"}
    argv = ["unshare", "-m", "sh", "-c", _READ_ONLY, str(folder), str(content), *command]
    with (folder.parent / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def test_site_on_a_read_only_disk_serves_what_is_there(tmp_path: Path, folder: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    settings = SatelliteSettings(data_dir=folder, _env_file=None, registry_kind="embedded", registry_listen=listen)
    refresh_plan(settings)
    with LayoutRegistry(folder / "registry/embedded") as registry:
        image = images.push_image(registry, "acme/app", images.AMD64, [images.layer("one", 1000)])
        images.tag_image(registry, "acme/app", "v1", image)
    (folder / ".supervisor.lock").touch(mode=0o600)
    content = tmp_path / "content"
    shutil.copytree(folder, content)
    until, digest = time.monotonic() + _WAIT_SECONDS, ""

    with run_read_only(folder, content, listen) as process:
        while not digest and time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"http://{listen}/v2/acme/app/manifests/v1", headers={"Accept": "*/*"})
                digest = answer.headers["docker-content-digest"]
            time.sleep(0.1)
    log = (tmp_path / "log").read_text()

    assert digest == str(image.digest), log
    assert process.returncode == 0
    assert f"the disk is read-only: what is there is served, and nothing new comes folder={folder}" in log
    assert "Traceback" not in log


def test_site_on_a_read_only_disk_that_never_ran_says_so_and_asks_to_be_tried_again(
    tmp_path: Path, folder: Path
) -> None:
    content = tmp_path / "content"
    content.mkdir(mode=0o700)

    with run_read_only(folder, content, "127.0.0.1:1") as process:
        process.wait(_WAIT_SECONDS)
    log = (tmp_path / "log").read_text()

    assert process.returncode == 75, log
    assert f"{folder} is on a read-only disk, and no site was ever run there" in log
    assert "Traceback" not in log
