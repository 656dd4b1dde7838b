"""Docker: ``daemon.json``, and a line of ``/etc/hosts`` for the local registry's own name. Pure.

Docker asks mirrors for Docker Hub's images only, and always falls back to it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.json_edit import put_first
from harbor_satellite.host_config.rendered import OWN_NAME, Reload, RenderedFile, Rendering, common_notes
from harbor_satellite.host_config.toml_files import line_end
from harbor_satellite.oci.reference import DOCKER_HUB

if TYPE_CHECKING:
    from harbor_satellite.host_config.rendered import HostFiles, MirrorSettings

CONFIG: Final = "/etc/docker/daemon.json"
CERTS: Final = "/etc/docker/certs.d"
HOSTS: Final = "/etc/hosts"
RELOAD: Final = Reload("docker.service", "reload")
FORWARD_ADDRESS: Final = "127.0.0.1"
"""Where the agent's forwarder answers on port 80: Docker has no other way to give a registry another name."""
_MIRRORS: Final = "registry-mirrors"
_INSECURE: Final = "insecure-registries"
_UNITS: Final = (
    "/etc/systemd/system/docker.service",
    "/etc/systemd/system/docker.service.d/*.conf",
    "/run/systemd/system/docker.service.d/*.conf",
    "/usr/lib/systemd/system/docker.service",
    "/usr/lib/systemd/system/docker.service.d/*.conf",
    "/lib/systemd/system/docker.service",
    "/etc/default/docker",
    "/etc/sysconfig/docker",
)


def render_docker(files: HostFiles, mirrors: MirrorSettings) -> Rendering:
    """Render Docker's files.

    Raises:
        InvalidInputError: ``daemon.json`` is none, or options of the daemon rule it out.
    """
    text = files.read(CONFIG) or ""
    wanted = [(_INSECURE, OWN_NAME)]
    if not mirrors.is_tls and not mirrors.is_loopback:
        wanted.append((_INSECURE, mirrors.local_host))
    if DOCKER_HUB in mirrors.registries:
        wanted.append((_MIRRORS, mirrors.local_url))
    for key, item in wanted:
        text = put_first(text, CONFIG, key, item)
    _refuse_options(files, {key for key, _ in wanted})
    hosts, notes = _hosts(files.read(HOSTS) or "")
    rendered = [RenderedFile(HOSTS, hosts), RenderedFile(CONFIG, text, reload=RELOAD)]
    if mirrors.ca:
        rendered.insert(0, RenderedFile(f"{CERTS}/{mirrors.local_host}/harbor-satellite.crt", mirrors.ca))
    others = [registry for registry in mirrors.registries if registry != DOCKER_HUB]
    if others:
        notes += (
            f"Docker has mirrors for docker.io only: {', '.join(others)} cannot be pointed at the local registry",
        )
    if not mirrors.is_fallback and DOCKER_HUB in mirrors.registries:
        notes += ("Docker always asks docker.io for what a mirror lacks: its fallback cannot be turned off",)
    return Rendering(tuple(rendered), notes + common_notes(mirrors))


def _refuse_options(files: HostFiles, keys: set[str]) -> None:
    """Refuse what would keep the daemon from starting: the same directive as an option and in the file."""
    for path in [path for pattern in _UNITS for path in files.match(pattern)]:
        for line in (files.read(path) or "").splitlines():
            option = next((key for key in sorted(keys) if re.search(rf"--{key[:-3]}(?:y|ies|or|ors)\b", line)), None)
            if option and not line.lstrip().startswith("#"):
                raise InvalidInputError(
                    f"{path} gives the daemon {option} as an option, and Docker starts with either that or {CONFIG}: "
                    "move it there"
                )


def _hosts(text: str) -> tuple[str, tuple[str, ...]]:
    end = line_end(text)
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if OWN_NAME in names:
            if address == FORWARD_ADDRESS:
                return text, ()
            return text, (f"{HOSTS} gives {OWN_NAME} the address {address}: left as it is",)
    gap = end if text and not text.endswith("\n") else ""
    return f"{text}{gap}{FORWARD_ADDRESS} {OWN_NAME} # harbor-satellite{end}", ()
