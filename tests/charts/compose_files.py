"""The compose files: loaded with variables filled in, and their services as containers that can be started here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.charts.processes import Container

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPOSE = Path(__file__).resolve().parents[2] / "deployments" / "compose"
VARIABLES = {
    "GROUND_CONTROL_IMAGE": "registry.example.com/harbor-satellite/ground-control:1.0.0",
    "SATELLITE_IMAGE": "registry.example.com/harbor-satellite/satellite:1.0.0",
    "CENTRE_HOST": "ground-control.example.com",
    "SOURCE_URL": "http://127.0.0.1:1",
    "SOURCE_KIND": "oci",
}
_ENTRYPOINT = ["harbor-satellite"]  # the image's
_PORTS = {"prefect": "4200", "ground-control": "8080"}
_PROBED = re.compile(r"http://127\.0\.0\.1:\d+(/[a-z/]+)")


def load(name: str) -> dict[str, Any]:
    """Return a compose file, its variables filled in from `VARIABLES`."""
    text = (COMPOSE / name).read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", _variable, text))
    return document


def _variable(found: re.Match[str]) -> str:
    is_needed = ":?" in found[0]
    assert not is_needed or found[1] in VARIABLES, f"{found[1]} is needed"
    return VARIABLES.get(found[1], "" if is_needed else found[2] or "")


def made_secrets(folder: Path, source_password: str) -> Path:
    """Run the script that makes the secrets, on a copy; return their folder."""
    shutil.copy(COMPOSE / "secrets.sh", folder / "secrets.sh")
    env = {"PATH": os.environ["PATH"], "SOURCE_PASSWORD": source_password}
    subprocess.run(["sh", folder / "secrets.sh"], check=True, env=env, capture_output=True, cwd="/")
    return folder / "secrets"


def compose_containers(folder: Path, ports: Mapping[str, int]) -> dict[str, Container]:
    """Return the centre's services of our own image.

    Args:
        folder: where the secrets are.
        ports: service → port of this machine that is put in its own's place.
    """
    document = load("centre.yaml")
    return {
        name: _container(name, service, document, folder, ports)
        for name, service in document["services"].items()
        if service["image"] == VARIABLES["GROUND_CONTROL_IMAGE"]
    }


def _container(
    name: str, service: dict[str, Any], document: dict[str, Any], folder: Path, ports: Mapping[str, int]
) -> Container:
    argv = [*service.get("entrypoint", _ENTRYPOINT), *service["command"]]
    places = {"0.0.0.0": "127.0.0.1", _PORTS.get(name, ""): str(ports.get(name, ""))}  # noqa: S104 - put away here
    env = dict(service["environment"])
    if "env_file" in service:
        lines = (folder / service["env_file"]).read_text(encoding="utf-8").splitlines()
        env |= {key: value for key, _, value in (line.partition("=") for line in lines)}
    env = {key: str(value).replace("prefect:4200", f"127.0.0.1:{ports['prefect']}") for key, value in env.items()}
    if name == "worker":
        env["PREFECT_WORKER_WEBSERVER_PORT"] = str(ports["worker"])
    files = {
        f"/run/secrets/{each['target']}": (folder / document["secrets"][each["source"]]["file"]).read_text(
            encoding="utf-8"
        )
        for each in service.get("secrets", [])
    }
    probed = _PROBED.search(" ".join(service.get("healthcheck", {}).get("test", [])))
    return Container(
        name,
        tuple(places.get(part, part) for part in argv),
        env,
        files,
        tuple(each.partition(":")[0] for each in service["tmpfs"]),
        probed[1] if probed else "",
        ports.get(name, 0),
    )
