"""Hosts in a folder, for tests of what is written into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harbor_satellite.errors import HostError
from harbor_satellite.host_config.rendered import MirrorSettings

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.host_config.rendered import Reload

MIRRORS = MirrorSettings("http://127.0.0.1:8585", ("docker.io", "harbor.example.com:8443"))
CONFIG = "etc/containerd/config.toml"
DAEMON = "etc/docker/daemon.json"
DROP_IN = "etc/containers/registries.conf.d/50-harbor-satellite.conf"
DEBIAN = 'version = 2\n\n# from the package\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    x = 1\n'


def put(root: Path, path: str, text: str, mode: int = 0o644) -> Path:
    """Make a file of the host."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(text.encode())
    place.chmod(mode)
    return place


def seen(root: Path) -> dict[str, tuple[bytes, int] | None]:
    """Return everything below a host's root but our own record: files with their modes, folders, and links."""
    found: dict[str, tuple[bytes, int] | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith("var") and ("harbor-satellite-runtime" in name or name in {"var", "var/lib"}):
            continue
        if path.is_symlink():
            found[name] = str(path.readlink()).encode(), 0
        else:
            found[name] = (path.read_bytes(), path.stat().st_mode) if path.is_file() else None
    return found


class Reloads:
    """Stands for systemd: notes what it is told, and refuses as often as it shall."""

    def __init__(self, *, refusals: int = 0) -> None:
        self.told: list[tuple[str, str]] = []
        self.mirrors: tuple[str, ...] = ()
        self._refusals = refusals

    def __call__(self, reload: Reload, mirrors: tuple[str, ...]) -> str:
        self.told.append((reload.unit, reload.verb))
        self.mirrors = mirrors
        self._refusals -= 1
        if self._refusals >= 0:
            raise HostError(f"{reload.unit} does not start")
        return f"{reload.unit}: {reload.verb} done"
