"""The systemd unit of a site, by systemd's own judgement."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harbor_satellite.edge.restarts import Pace

_UNITS = Path(__file__).resolve().parents[2] / "deployments" / "systemd"
_UNIT = _UNITS / "harbor-satellite.service"
_EXPOSURE_MAX = 2.0
"""Of 10, as ``systemd-analyze security`` counts; a site cannot do without its network."""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with programs that are there."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not there (Debian: apt install systemd): the units were NOT checked")
    path = tmp_path / _UNIT.name
    path.write_text(_UNIT.read_text().replace("/usr/bin/harbor-satellite", "/bin/true"))
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_supervisor_unit_is_verified(installed: Path) -> None:
    done = analyze("verify", "--man=no", str(installed))

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_supervisor_unit_verification_sees_a_mistake(installed: Path) -> None:
    installed.write_text(installed.read_text().replace("WatchdogSec=30", "WatchdogSeconds=30"))

    done = analyze("verify", "--man=no", str(installed))

    assert "WatchdogSeconds" in done.stdout + done.stderr


def test_supervisor_unit_is_hardened(installed: Path) -> None:
    done = analyze("security", "--offline=yes", f"--threshold={_EXPOSURE_MAX * 10:.0f}", "--no-pager", str(installed))
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze judges no files: the unit's hardening was NOT checked")

    assert done.returncode == 0, done.stdout


def test_supervisor_unit_starts_where_etc_is_read_only() -> None:
    """There, the file that was dropped on the image can be given to nobody."""
    steps = [line.partition("=")[2] for line in _UNIT.read_text().splitlines() if line.startswith("ExecStartPre=")]

    assert steps
    assert all("-" in step.partition("/")[0] for step in steps)


def test_supervisor_unit_gives_the_supervisor_its_time() -> None:
    lines = _UNIT.read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    assert float(fields["TimeoutStopSec"]) > Pace().stop_seconds + Pace().share_seconds
    assert float(fields["TimeoutStartSec"]) > 2 * Pace().ready_seconds
    assert (fields["Restart"], fields["KillMode"], fields["Type"]) == ("always", "mixed", "notify")
    assert fields["User"] in (_UNITS / "harbor-satellite.sysusers.conf").read_text()
