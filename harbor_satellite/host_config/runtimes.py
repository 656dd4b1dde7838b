"""The container runtimes that can be pointed at the local registry, and the traces by which each is found. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import NotFoundError
from harbor_satellite.host_config.containerd import render_containerd
from harbor_satellite.host_config.docker import render_docker
from harbor_satellite.host_config.registries_conf import render_crio, render_podman

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harbor_satellite.host_config.rendered import HostFiles, MirrorSettings, Rendering


@dataclass(frozen=True, slots=True)
class Runtime:
    """One container runtime."""

    name: str
    render: Callable[[HostFiles, MirrorSettings], Rendering]
    """The host's files, without what we added before → the files as they shall be."""
    traces: tuple[str, ...]
    """Sockets, programs and files of which one is there where the runtime is."""


RUNTIMES: Final[Mapping[str, Runtime]] = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "containerd",
            render_containerd,
            (
                "/run/containerd/containerd.sock",
                "/usr/bin/containerd",
                "/usr/local/bin/containerd",
                "/etc/containerd/config.toml",
            ),
        ),
        Runtime("crio", render_crio, ("/run/crio/crio.sock", "/usr/bin/crio", "/usr/local/bin/crio", "/etc/crio")),
        Runtime("podman", render_podman, ("/usr/bin/podman", "/usr/local/bin/podman")),
        Runtime(
            "docker",
            render_docker,
            ("/run/docker.sock", "/usr/bin/dockerd", "/usr/local/bin/dockerd", "/etc/docker/daemon.json"),
        ),
    )
}


def runtime_named(name: str) -> Runtime:
    """Return a runtime.

    Raises:
        NotFoundError: there is none of that name.
    """
    if name not in RUNTIMES:
        raise NotFoundError(f"no container runtime {name[:100]!r}: known are {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
