from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.project import project_dir
from harbor_satellite.settings import GroundControlSettings, SatelliteSettings

SECRET = "made-up-secret"


def test_satellite_settings_without_environment() -> None:
    settings = SatelliteSettings()

    assert settings.data_dir == Path("/var/lib/harbor-satellite")
    assert settings.local_registry_url == "http://127.0.0.1:8585"


@pytest.mark.parametrize(
    "name", ["HARBOR_SATELLITE_TOKEN", "HARBOR_SATELLITE_SOURCE_PASSWORD", "HARBOR_SATELLITE_LOCAL_REGISTRY_PASSWORD"]
)
def test_satellite_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)

    settings = SatelliteSettings()

    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump())


@pytest.mark.parametrize("name", ["DATABASE_URL", "ADMIN_PASSWORD", "SOURCE_PASSWORD"])
def test_ground_control_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"HARBOR_SATELLITE_GROUND_CONTROL_{name}", SECRET)

    assert SECRET not in repr(GroundControlSettings())


def test_ground_control_settings_prefect_auth_comes_from_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", f"admin:{SECRET}")

    settings = GroundControlSettings()

    assert settings.prefect_auth_string is not None
    assert settings.prefect_auth_string.get_secret_value() == f"admin:{SECRET}"
    assert SECRET not in repr(settings)


def _secrets(monkeypatch: pytest.MonkeyPatch, folder: Path, **values: str) -> None:
    for name, value in values.items():
        (folder / name).write_text(value, encoding="utf-8")
    monkeypatch.setenv("HARBOR_SATELLITE_GROUND_CONTROL_SECRETS_DIR", str(folder))


def test_ground_control_settings_are_read_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _secrets(
        monkeypatch,
        tmp_path,
        HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL=f"postgresql://{SECRET}\n",
        PREFECT_API_AUTH_STRING=f"admin:{SECRET}",
    )

    settings = GroundControlSettings()

    assert settings.database() == f"postgresql://{SECRET}"
    assert settings.prefect_auth_string is not None
    assert settings.prefect_auth_string.get_secret_value() == f"admin:{SECRET}"
    assert SECRET not in repr(settings)


def test_ground_control_settings_environment_stands_above_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _secrets(monkeypatch, tmp_path, HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_USERNAME="of-the-file")
    monkeypatch.setenv("HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_USERNAME", "of-the-environment")

    assert GroundControlSettings().source_username == "of-the-environment"


def test_ground_control_settings_folder_of_secrets_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_GROUND_CONTROL_SECRETS_DIR", str(tmp_path / "nowhere"))

    with pytest.raises(
        InvalidInputError, match=r"no folder .*/nowhere, which HARBOR_SATELLITE_GROUND_CONTROL_SECRETS_DIR"
    ):
        GroundControlSettings()


def test_ground_control_settings_secret_that_is_no_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _secrets(monkeypatch, tmp_path)
    (tmp_path / "HARBOR_SATELLITE_GROUND_CONTROL_ADMIN_PASSWORD").write_bytes(b"\xff\xfe")

    with pytest.raises(InvalidInputError, match=r"admin_password.*UTF-8"):
        GroundControlSettings()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_ground_control_settings_secret_that_may_not_be_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _secrets(monkeypatch, tmp_path, HARBOR_SATELLITE_GROUND_CONTROL_ADMIN_PASSWORD=SECRET)
    (tmp_path / "HARBOR_SATELLITE_GROUND_CONTROL_ADMIN_PASSWORD").chmod(0)

    with pytest.raises(InvalidInputError, match=r"cannot read .* as user"):
        GroundControlSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("IMAGE_WORKERS", "0"), ("IMAGE_WORKERS", "65"), ("POLL_INTERVAL_SECONDS", "0"), ("IMAGE_WORKERS", "many")],
)
def test_satellite_settings_out_of_bounds_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HARBOR_SATELLITE_{name}", value)

    with pytest.raises(ValidationError):
        SatelliteSettings()


@pytest.mark.parametrize(
    ("name", "value", "size"),
    [
        ("DAILY_BYTES", "5M", 5_000_000),
        ("MONTHLY_BYTES", "2G", 2 * 10**9),
        ("BYTES_PER_SECOND", "1Mi", 2**20),
        ("DISK_RESERVE_BYTES", "1Gi", 2**30),
        ("AUDIT_BUDGET_BYTES", "700M", 700_000_000),
        ("AUDIT_BYTES_PER_SECOND", "65536", 65536),
    ],
)
def test_satellite_settings_read_sizes_as_options_do(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, size: int
) -> None:
    monkeypatch.setenv(f"HARBOR_SATELLITE_{name}", value)

    assert getattr(SatelliteSettings(), name.lower()) == size


@pytest.mark.parametrize(("name", "value"), [("DAILY_BYTES", "5X"), ("BYTES_PER_SECOND", "1K"), ("DAILY_BYTES", "-1")])
def test_satellite_settings_refuse_what_is_no_size(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HARBOR_SATELLITE_{name}", value)

    with pytest.raises(ValidationError):
        SatelliteSettings()


def test_ground_control_settings_database_default_is_a_file_in_data_dir(tmp_path: Path) -> None:
    settings = GroundControlSettings(data_dir=tmp_path)

    assert settings.database() == f"sqlite:///{tmp_path.resolve()}/ground-control.sqlite"


@pytest.mark.parametrize("name", sorted(SatelliteSettings.model_fields))
def test_satellite_settings_each_is_read_somewhere(name: str) -> None:
    folders = [project_dir() / folder for folder in ("harbor_satellite", "tasks", "flows")]
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]

    assert any(re.search(rf"(settings|self|effective)\.{name}\b", text) for text in sources)
