"""``harbor-satellite ground-control create-admin``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.testing import CliRunner

from harbor_satellite.cli.ground_control import app

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PASSWORD = "Correct-Horse-1"


def test_create_admin_reads_the_password_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_GROUND_CONTROL_DATA_DIR", str(tmp_path))

    made = CliRunner().invoke(app, ["create-admin"], input=f"{PASSWORD}\n")
    reset = CliRunner().invoke(app, ["create-admin", "--reset"], input="Battery-Staple-2\n")

    assert (made.exit_code, made.output) == (0, "user admin is made, with role system_admin\n")
    assert (reset.exit_code, PASSWORD in reset.output) == (0, False)
