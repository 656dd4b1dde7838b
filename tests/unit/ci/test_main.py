from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
REFERENCE = "ghcr.io/acme/satellite@sha256:" + "1" * 64


def run_ci(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(PROJECT),
        # No program of that name: nothing is downloaded, no engine is started.
        "_EXPERIMENTAL_DAGGER_CLI_BIN": str(folder / "dagger"),
        "_EXPERIMENTAL_DAGGER_RUNNER_HOST": f"unix://{folder}/engine.sock",
    }
    command = [sys.executable, "-m", "ci", *arguments]
    return subprocess.run(
        command, cwd=PROJECT, env=environment | variables, capture_output=True, text=True, check=False
    )


def public_key(folder: Path) -> str:
    (folder / "cosign.pub").write_text("-----BEGIN PUBLIC KEY-----\n")
    return str(folder / "cosign.pub")


def test_main_without_engine_says_how_to_get_one(tmp_path: Path) -> None:
    done = run_ci(tmp_path, "verify", REFERENCE, "--public-key", public_key(tmp_path))

    assert done.returncode == 2
    assert "ci: no Dagger engine" in done.stderr
    for word in ("Docker", "Podman", "_EXPERIMENTAL_DAGGER_RUNNER_HOST", "_EXPERIMENTAL_DAGGER_CLI_BIN"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_main_missing_key_is_told_before_an_engine_is_wanted(tmp_path: Path) -> None:
    done = run_ci(tmp_path, "sign", REFERENCE, "--public-key", public_key(tmp_path))

    assert done.returncode == 2
    assert done.stderr.startswith("ci: to sign, COSIGN_PRIVATE_KEY must hold the private key")


def test_main_tag_is_not_signed(tmp_path: Path) -> None:
    tag = "ghcr.io/acme/satellite:1.2.3"

    done = run_ci(tmp_path, "sign", tag, "--public-key", public_key(tmp_path), COSIGN_PRIVATE_KEY="made-up")

    assert done.returncode == 2
    assert f"{tag} is a tag, which may move" in done.stderr


def test_main_release_of_another_version_is_refused(tmp_path: Path) -> None:
    done = run_ci(tmp_path, "release", "--tag", "v987.0.0", "--registry", "ghcr.io/acme", "--dry-run")

    assert done.returncode == 2
    assert "the tag v987.0.0 is of 987.0.0, but the package says it is" in done.stderr
