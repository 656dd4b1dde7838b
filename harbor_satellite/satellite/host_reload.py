"""Making a container runtime read its files again, through systemd where that runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.host_config.rendered import Reload

_ASK_SECONDS: Final = 10.0
_RELOAD_SECONDS: Final = 120.0
_TAKES_EFFECT_SECONDS: Final = 15.0
_PAUSE_SECONDS: Final = 0.2
_DOCKER: Final = "docker.service"


def reload_runtime(
    reload: Reload, mirrors: tuple[str, ...] = (), patience_seconds: float = _TAKES_EFFECT_SECONDS
) -> str:
    """Reload or restart a unit, if systemd runs it; return a line about what was done, or is left to do.

    Args:
        reload: what to do.
        mirrors: of Docker, which must be in force afterwards.
        patience_seconds: so long after it was told, Docker has read its file.

    Raises:
        HostError: it did not come back, or did not take its new configuration.
    """
    name = reload.unit.removesuffix(".service")
    systemctl = shutil.which("systemctl")
    if systemctl is None or not _is_active(systemctl, reload.unit):
        return f"{reload.unit} is not run by systemd now: {reload.verb} {name} yourself if it runs"
    _run([systemctl, reload.verb, reload.unit], f"cannot {reload.verb} {reload.unit}")
    if not _is_active(systemctl, reload.unit):
        raise HostError(f"{reload.unit} is down after its {reload.verb}")
    if reload.unit == _DOCKER and (docker := shutil.which("docker")):
        _wait(lambda: set(mirrors) <= _docker_mirrors(docker), patience_seconds)
    return f"{reload.unit}: {reload.verb} done"


def _is_active(systemctl: str, unit: str) -> bool:
    try:
        found = subprocess.run(  # noqa: S603  (a fixed command)
            [systemctl, "is-active", "--quiet", unit], check=False, capture_output=True, timeout=_ASK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0


def _run(command: list[str], message: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603  (a fixed command)
            command, check=False, capture_output=True, text=True, errors="replace", timeout=_RELOAD_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{message}: {type(error).__name__}") from error
    if done.returncode != 0:
        raise HostError(f"{message}: exit {done.returncode}: {done.stderr.strip()[-300:]}")


def _docker_mirrors(docker: str) -> set[str]:
    """Return the mirrors that Docker uses now; it reloads after it has been told to, and says no when it cannot."""
    try:
        done = subprocess.run(  # noqa: S603  (a fixed command)
            [docker, "info", "--format", "{{json .RegistryConfig.Mirrors}}"],
            check=True,
            capture_output=True,
            timeout=_ASK_SECONDS,
        )
        return {str(mirror).rstrip("/") for mirror in json.loads(done.stdout) or ()}
    except (OSError, ValueError, TypeError, subprocess.SubprocessError):
        return set()


def _wait(is_done: Callable[[], bool], patience_seconds: float) -> None:
    until = time.monotonic() + patience_seconds
    while not is_done():
        if time.monotonic() > until:
            raise HostError("Docker did not take its mirrors: see its log")
        time.sleep(_PAUSE_SECONDS)
