"""`edge sync` on a full disk: a clear error, the good image arrives, nothing half-published, room heals it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from harbor_satellite.demo import images
from harbor_satellite.registry.client import HttpRegistry
from tests.fixtures_registry import PASSWORD, USERNAME, run_embedded
from tests.integration.test_embedded_registry_crash import small_disk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures_registry import RunningRegistry

__all__ = ["small_disk"]

SYNC = (sys.executable, "-c", "from harbor_satellite.cli import main; main()", "edge", "sync")


def sync(state: Path, target: RunningRegistry, data_dir: Path) -> tuple[int, dict[str, Any]]:
    environment = {
        "HARBOR_SATELLITE_LOCAL_REGISTRY_USERNAME": USERNAME,
        "HARBOR_SATELLITE_LOCAL_REGISTRY_PASSWORD": PASSWORD,
    }
    arguments = ("--state", str(state), "--target", target.url, "--data-dir", str(data_dir), "--output", "json")
    done = subprocess.run([*SYNC, *arguments], env=environment, capture_output=True, check=False, timeout=60)
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def state(tmp_path: Path, embedded_registry: RunningRegistry) -> Path:
    """A state with an image that fits on the small disk and one that does not."""
    artifacts = []
    with HttpRegistry(embedded_registry.url) as source:
        for name, size in (("acme/large", 12_000_000), ("acme/small", 1_000_000)):
            image = images.push_image(source, name, images.AMD64, [images.layer(name, size)])
            artifacts.append({"repository": name, "tag": ["v1"], "digest": str(image.digest)})
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"group": "g", "registry": embedded_registry.url, "artifacts": artifacts}))
    return path


def test_sync_disk_full_names_the_image_and_brings_the_others(state: Path, tmp_path: Path, small_disk: Path) -> None:
    with run_embedded(small_disk / "local", has_password=True) as target, HttpRegistry(target.url) as local:
        code, outcome = sync(state, target, tmp_path / "data")

        assert code == 1
        assert [item["reference"] for item in outcome["copied"]] == ["acme/small:v1"]
        (failed,) = outcome["failed"]
        assert failed["reference"] == "acme/large:v1"
        assert "no space left" in failed["reason"]
        assert local.tag_list("acme/large") == ()
        assert local.tag_list("acme/small") == ("v1",)


def test_sync_record_on_full_disk_publishes_nothing_it_would_forget(
    state: Path, tmp_path: Path, small_disk: Path
) -> None:
    (small_disk / "fill").write_bytes(b"x" * 8_380_000)
    with run_embedded(tmp_path / "local", has_password=True) as target, HttpRegistry(target.url) as local:
        arguments = ("--state", str(state), "--target", target.url, "--data-dir", str(small_disk / "data"))
        environment = {
            "HARBOR_SATELLITE_LOCAL_REGISTRY_USERNAME": USERNAME,
            "HARBOR_SATELLITE_LOCAL_REGISTRY_PASSWORD": PASSWORD,
        }
        while True:  # to the last byte
            try:
                with (small_disk / "fill").open("ab") as file:
                    file.write(b"x" * 4096)
            except OSError:
                break
        done = subprocess.run([*SYNC, *arguments], env=environment, capture_output=True, check=False, timeout=60)

        assert done.returncode == 1
        assert b"No space left on device" in done.stderr
        assert local.tag_list("acme/small") == ()
