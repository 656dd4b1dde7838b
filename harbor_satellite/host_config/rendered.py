"""What a rendering is made of: the mirrors that are wanted, the host's files as text, and the files that come of it.

Values only: reading and writing the host's disk is the business of ``satellite/host.py``.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.reference import DOCKER_HUB, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OWN_NAME: Final = "satellite.zot"
"""The registry's name under which every runtime finds the local registry."""
HUB_URL: Final = "https://registry-1.docker.io"
"""Where Docker Hub's registry answers; its name, docker.io, has no registry behind it."""
_LOOPBACK: Final = re.compile(r"localhost|127(?:\.\d{1,3}){3}|\[::1\]")
_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----\r?\n[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----", re.ASCII
)


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """Which registries the local one stands in for, and how it is reached.

    Raises:
        InvalidInputError: a host or the URL breaks its rule; so all of it can be written into a file unquoted.
    """

    local_url: str
    """``http://HOST:PORT`` or ``https://HOST[:PORT]`` of the local registry."""
    registries: tuple[str, ...] = (DOCKER_HUB,)
    """``host[:port]``."""
    is_fallback: bool = True
    """Whether a runtime asks the registry itself for what the local one lacks."""
    ca: str = ""
    """PEM certificates that the local registry's own is held against; empty: the system's."""
    needs_user: bool = False
    """Whether the local registry wants a user for pulls."""

    def __post_init__(self) -> None:
        if self.local_url.partition("://")[0] not in {"http", "https"}:
            raise InvalidInputError(f"not the URL of a registry (http://HOST:PORT): {self.local_url[-200:]!r}")
        for host in (self.local_host, *self.registries):
            Reference(host, "any")  # checks host and port, and that there is nothing else
        if OWN_NAME in self.registries or self.local_host in self.registries:
            raise InvalidInputError("the local registry cannot stand in for itself")
        if self.ca and (not self.is_tls or self.ca != certificates(self.ca)):
            raise InvalidInputError("the CA of the local registry: not PEM certificates, or its URL is not https")

    @property
    def local_host(self) -> str:
        """``HOST:PORT`` of the local registry."""
        return self.local_url.partition("://")[2]

    @property
    def is_tls(self) -> bool:
        """Whether the local registry speaks TLS."""
        return self.local_url.startswith("https://")

    @property
    def is_loopback(self) -> bool:
        """Whether the local registry is on this machine."""
        return _LOOPBACK.fullmatch(re.sub(r":\d+$", "", self.local_host)) is not None


@dataclass(frozen=True, slots=True)
class Reload:
    """How a runtime is made to read its files again."""

    unit: str
    """Of systemd."""
    verb: str
    """``reload`` or ``restart``."""


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """One file as it shall be."""

    path: str
    """Absolute, as the runtime sees it."""
    text: str
    mode: int = 0o644
    """Of a file that is new; one that is there keeps its own."""
    reload: Reload | None = None
    """What must be done once the file has changed; None: the runtime reads it at every pull."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """All files of one runtime."""

    files: tuple[RenderedFile, ...]
    """In the order in which they are to be written."""
    notes: tuple[str, ...] = ()
    """What an operator should know: what was left alone, and what this runtime cannot do."""


class HostFiles(Protocol):
    """The files of a host, as text."""

    def read(self, path: str) -> str | None:
        """Return a file's text; None: there is none."""
        ...

    def match(self, pattern: str) -> Sequence[str]:
        """Return the paths of the files that match an absolute glob pattern, sorted."""
        ...


@dataclass(frozen=True, slots=True)
class TextFiles:
    """A host's files that are known already."""

    texts: Mapping[str, str]

    def read(self, path: str) -> str | None:
        """Return a file's text; None: there is none."""
        return self.texts.get(path)

    def match(self, pattern: str) -> Sequence[str]:
        """Return the paths of the files that match an absolute glob pattern, sorted."""
        depth = pattern.count("/")
        return sorted(path for path in self.texts if path.count("/") == depth and fnmatch.fnmatchcase(path, pattern))


def certificates(pem: str) -> str:
    """Return the certificates of a PEM bundle and nothing else of it: what stands between may be a key."""
    return "".join(f"{found}\n" for found in _CERTIFICATE.findall(pem))


def upstream_url(registry: str) -> str:
    """Return where a registry answers that an image names."""
    return HUB_URL if registry == DOCKER_HUB else f"https://{registry}"


def common_notes(mirrors: MirrorSettings) -> tuple[str, ...]:
    """Return what holds for every runtime."""
    notes = []
    if len(mirrors.registries) > 1:
        notes.append(
            f"{', '.join(mirrors.registries)} meet in one local registry: images of the same name are one there"
        )
    if mirrors.needs_user:
        notes.append(
            f"the local registry wants a user: give the runtimes one for {mirrors.local_host} "
            "(pull secret, podman login, docker login), or allow anonymous reading"
        )
    return tuple(notes)
