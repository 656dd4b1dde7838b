"""The compose files, service by service; read by Docker Compose itself where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import prefect.settings
import pytest
import yaml

from harbor_satellite.central_service import prefect_environment
from harbor_satellite.settings import GroundControlSettings, SatelliteSettings
from tests.charts.compose_files import COMPOSE, VARIABLES, load, made_secrets
from tests.ground_control.postgres import running_postgres

if TYPE_CHECKING:
    from pathlib import Path

_FILES = ("centre.yaml", "site.yaml")
_PREFIX = "HARBOR_SATELLITE_GROUND_CONTROL_"
_SECRETS = {
    "admin-password",
    "database-url",
    "ground_control-database-password",
    "metrics-token",
    "postgres-password",
    "prefect-client.env",
    "prefect-database-password",
    "prefect-password",
    "prefect-server.env",
    "source-password",
}


@pytest.fixture(
    name="service", params=[(file, name) for file in _FILES for name in load(file)["services"]], ids="-".join
)
def _service(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, service and file of each in turn."""
    file, name = request.param
    document = load(file)
    return name, document["services"][name], document


def _compose() -> list[str]:
    """Return how Docker Compose is called here; skips the test where there is none."""
    if program := shutil.which("docker-compose"):
        return [program]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    pytest.skip("no docker-compose on PATH and no `docker compose`: the compose files are not read by it")


@pytest.mark.parametrize("name", _FILES)
def test_compose_itself_takes_the_file(name: str, tmp_path: Path) -> None:
    shutil.copytree(COMPOSE, tmp_path, dirs_exist_ok=True)
    made_secrets(tmp_path, source_password="made-up")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **VARIABLES}

    done = subprocess.run(
        [*_compose(), "--file", tmp_path / name, "--profile", "tls", "config", "--format", "json"],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(load(name)["services"])


@pytest.mark.parametrize("missing", ["CENTRE_HOST", "SOURCE_URL", "GROUND_CONTROL_IMAGE"])
def test_compose_itself_says_what_must_be_set(missing: str, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **VARIABLES}
    del env[missing]

    done = subprocess.run(
        [*_compose(), "--file", COMPOSE / "centre.yaml", "config"], capture_output=True, text=True, env=env, check=False
    )

    assert done.returncode != 0
    assert missing in done.stderr


def test_service_is_confined(service: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    name, spec, _ = service

    assert spec["read_only"] is True
    assert spec["cap_drop"] == ["ALL"]
    assert spec.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "front" else [])
    assert spec["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in spec
    assert spec.get("user", "root") == {"postgres": "postgres", "front": "root"}.get(name, "65532:65532")
    assert spec["restart"] == ("no" if name in {"migrate", "deploy"} else "always")


def test_service_names_what_the_file_has(service: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    _, spec, document = service

    wanted = {each["source"] if isinstance(each, dict) else each for each in spec.get("secrets", [])}
    assert wanted <= set(document.get("secrets", {}))
    assert set(spec.get("networks", [])) <= set(document.get("networks", {}))
    assert set(spec.get("depends_on", {})) <= set(document["services"])
    volumes = {each.partition(":")[0] for each in spec.get("volumes", [])}
    assert {each for each in volumes if not each.startswith(".")} <= set(document.get("volumes", {}))
    for bound in volumes - set(document.get("volumes", {})):
        assert bound == "./registration.json" or (COMPOSE / bound).is_file()
    for needed, how in spec.get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "healthcheck" in document["services"][needed]
        else:
            assert document["services"][needed]["restart"] == "no"


def test_service_variables_are_settings_that_exist(service: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    _, spec, _ = service
    centre = {f"{_PREFIX}{name.upper()}" for name in GroundControlSettings.model_fields} | {f"{_PREFIX}SECRETS_DIR"}
    site = {f"HARBOR_SATELLITE_{name.upper()}" for name in SatelliteSettings.model_fields}

    given = {name for name in spec["environment"] if name.startswith("HARBOR_SATELLITE_")}
    given |= {each["target"] for each in spec.get("secrets", []) if isinstance(each, dict)}

    assert given <= centre | site | {"HARBOR_SATELLITE_LOG_LEVEL"}


def test_service_variables_are_settings_that_prefect_knows(
    service: tuple[str, dict[str, Any], dict[str, Any]],
) -> None:
    _, spec, _ = service

    given = [name for name in spec["environment"] if name.startswith("PREFECT_")]

    assert [name for name in given if not hasattr(prefect.settings, name)] == []


def test_site_runs_the_images_default() -> None:
    site = load("site.yaml")["services"]["site"]

    assert site["command"] == ["edge", "run"]
    assert site["network_mode"] == "host"


def test_centre_prefect_is_reached_from_within_and_by_this_machines_operators_only() -> None:
    document = load("centre.yaml")
    services = document["services"]

    assert document["networks"]["inside"] == {"internal": True}
    assert set(services["prefect"]["networks"]) == {"inside", "console"}
    assert [name for name, each in services.items() if "console" in each["networks"]] == ["prefect"]
    assert services["postgres"]["networks"] == ["inside"]
    assert services["front"]["networks"] == ["outside"]
    published = [port for name, each in services.items() if name != "front" for port in each.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_centre_prefect_is_set_up_as_ground_control_sets_up_its_own() -> None:
    given = load("centre.yaml")["services"]["prefect"]["environment"]
    own = prefect_environment(COMPOSE, retention_days=7)
    del own["PREFECT_HOME"]

    assert own.items() <= given.items()


def test_centre_secrets_are_in_no_variable() -> None:
    for service in load("centre.yaml")["services"].values():
        for name in service["environment"]:
            assert not name.endswith(("_PASSWORD", "_AUTH_STRING", "_CONNECTION_URL", "_DATABASE_URL", "_TOKEN")), name


# -- what lies beside them ----------------------------------------------------------------------------------------


def test_secrets_script_makes_what_the_file_names(tmp_path: Path) -> None:
    folder = made_secrets(tmp_path, source_password="made-up")

    assert {path.name for path in folder.iterdir()} == _SECRETS
    assert folder.stat().st_mode & 0o777 == 0o700
    named = {each["file"].removeprefix("secrets/") for each in load("centre.yaml")["secrets"].values()}
    named |= {
        each.get("env_file", "secrets/prefect-client.env")[8:] for each in load("centre.yaml")["services"].values()
    }
    assert named <= _SECRETS
    values = [path.read_text(encoding="utf-8").strip() for path in folder.iterdir()]
    assert len(values) == len(set(values))
    assert (folder / "source-password").read_text(encoding="utf-8") == "made-up\n"


def test_secrets_script_twice_changes_nothing(tmp_path: Path) -> None:
    folder = made_secrets(tmp_path, source_password="made-up")
    before = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}

    made_secrets(tmp_path, source_password="another")

    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == before


@pytest.mark.postgres
def test_postgres_init_makes_two_databases_that_are_apart(tmp_path: Path) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("no psql on PATH")
    for name in ("ground_control", "prefect"):
        (tmp_path / f"{name}-database-password").write_text(f"it's {name}\n", encoding="utf-8")
    with running_postgres() as server:  # its own: the other one may hold databases of these names
        env = {
            "PATH": os.environ["PATH"],
            "SECRETS": str(tmp_path),
            "POSTGRES_USER": server.username,
            "PGHOST": str(server.socket_dir),
        }
        query = [psql, "--no-psqlrc", "--tuples-only", "--no-align", "--dbname", "ground_control", "--username"]

        done, own, other = (
            subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
            for argv in (
                ["sh", COMPOSE / "postgres-init.sh"],
                [*query, "ground_control", "-c", "CREATE TABLE t ()"],
                [*query, "prefect", "-c", "SELECT 1"],
            )
        )

    assert done.returncode == 0, done.stderr
    assert own.returncode == 0, own.stderr
    assert "permission denied for database" in other.stderr


def test_caddyfile_is_read_by_caddy() -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("no caddy on PATH")

    done = subprocess.run(
        [caddy, "adapt", "--validate", "--config", COMPOSE / "Caddyfile", "--adapter", "caddyfile"],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **VARIABLES},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert '"dial":"ground-control:8080"' in done.stdout.replace(" ", "")
