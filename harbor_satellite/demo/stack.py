"""The processes of the demo: two registries, the central service, and a site's agent; all real, all local."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from pydantic import SecretStr

from harbor_satellite.processes import Child, free_port
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.htpasswd import set_password
from harbor_satellite.registry.zot import ZotSettings, zot_config

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_REGISTRY_START_SECONDS: Final = 30.0
_CENTRE_START_SECONDS: Final = 180.0
CENTRAL_USER: Final = "ground-control"
_CLI: Final = (sys.executable, "-c", "from harbor_satellite.cli import main; main()")


@dataclass(frozen=True)
class Addresses:
    """Where everything listens."""

    central_registry: str
    local_registry: str
    ground_control: str
    prefect: str
    status_page: str


class DemoStack:
    """Starts and stops the demo's processes; each logs to a file of its own under the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.addresses = Addresses(*(f"http://127.0.0.1:{free_port()}" for _ in range(5)))
        self.admin_password = SecretStr(f"Demo1-{secrets.token_urlsafe(12)}")
        self._password = secrets.token_urlsafe(24)
        self._stack = ExitStack()
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        """Use the stack in a ``with`` block, which stops everything."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything, last started first."""
        for child in reversed(self._children):
            child.stop()
        self._stack.close()

    @property
    def registry_kind(self) -> str:
        """Which local registry this machine offers."""
        return "zot" if shutil.which("zot") else "embedded"

    def start_registry(self) -> None:
        """Start the central registry; its one user pushes there, and pulls need a credential, too."""
        set_password(self._htpasswd, CENTRAL_USER, self._password, is_random=True)
        url = self.addresses.central_registry
        self._start("central registry", self._registry_argv(url), {}).wait_for(f"{url}/v2/", _REGISTRY_START_SECONDS)

    def start_centre(self) -> Child:
        """Start Ground Control with its Prefect server and central worker; returns before they answer."""
        prefix = "HARBOR_SATELLITE_GROUND_CONTROL_"
        env = {
            f"{prefix}PORT": _port(self.addresses.ground_control),
            f"{prefix}DATA_DIR": str(self.folder / "centre"),
            f"{prefix}ADMIN_PASSWORD": self.admin_password.get_secret_value(),
            f"{prefix}SOURCE_KIND": "oci",
            f"{prefix}SOURCE_URL": self.addresses.central_registry,
            f"{prefix}SOURCE_USERNAME": CENTRAL_USER,
            f"{prefix}SOURCE_PASSWORD": self._password,
            f"{prefix}SOURCE_HTPASSWD": str(self._htpasswd),
            "PREFECT_API_URL": "",
        }
        argv = (*_CLI, "ground-control", "serve", "--prefect-port", _port(self.addresses.prefect))
        return self._start("ground control", argv, env)

    def wait_for_centre(self, centre: Child) -> None:
        """Wait until Ground Control answers, which it does once its Prefect is ready."""
        centre.wait_for(f"{self.addresses.ground_control}/ping", _CENTRE_START_SECONDS)

    def start_edge(self, token: SecretStr) -> Child:
        """Start the site: its supervisor, local registry, and agent, which registers with the one-time token."""
        token_file = self.folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(token.get_secret_value(), encoding="utf-8")
        env = {
            "HARBOR_SATELLITE_DATA_DIR": str(self.folder / "edge"),
            "HARBOR_SATELLITE_GROUND_CONTROL_URL": self.addresses.ground_control,
            "HARBOR_SATELLITE_TOKEN_FILE": str(token_file),
            "HARBOR_SATELLITE_ENV_FILE": str(self.folder / "satellite.env"),
            "HARBOR_SATELLITE_REGISTRY_LISTEN": self.addresses.local_registry.removeprefix("http://"),
            "HARBOR_SATELLITE_STATUS_LISTEN": self.addresses.status_page.removeprefix("http://"),
            "HARBOR_SATELLITE_POLL_INTERVAL_SECONDS": "2",
            "PREFECT_API_URL": "",
        }
        return self._start("site", (*_CLI, "edge", "run"), env)

    def central(self) -> HttpRegistry:
        """Open the central registry as the one who pushes there."""
        password = SecretStr(self._password)
        url = self.addresses.central_registry
        return self._stack.enter_context(HttpRegistry(url, credentials=Credentials(CENTRAL_USER, password)))

    def local(self) -> HttpRegistry:
        """Open the site's registry as a container runtime does: without a credential."""
        return self._stack.enter_context(HttpRegistry(self.addresses.local_registry))

    def _start(self, name: str, argv: tuple[str, ...], env: dict[str, str]) -> Child:
        # What the shell may hold for a real centre or site is none of the demo's business.
        foreign = {key: "" for key in os.environ if key.startswith(("HARBOR_SATELLITE_", "PREFECT_"))}
        child = Child(name, argv, env=foreign | env, log=self.folder / "logs" / f"{name.replace(' ', '-')}.log")
        self._children.append(child)
        return child

    def _registry_argv(self, url: str) -> tuple[str, ...]:
        root = self.folder / "central-registry"
        if self.registry_kind == "zot":
            config = self.folder / "zot-central.json"
            zot = ZotSettings(root, "127.0.0.1", int(_port(url)), self._htpasswd, CENTRAL_USER, anonymous_read=False)
            config.write_text(zot_config(zot), encoding="utf-8")
            return ("zot", "serve", str(config))
        listen = url.removeprefix("http://")
        users = ("--htpasswd", str(self._htpasswd), "--writer", CENTRAL_USER, "--authenticated-read")
        return (*_CLI, "edge", "registry", "--root", str(root), "--listen", listen, *users)

    @property
    def _htpasswd(self) -> Path:
        return self.folder / "central.htpasswd"


def _port(url: str) -> str:
    return url.rpartition(":")[2]
