"""The registries a site talks to: sources by their URL, each with the right credentials, and the local one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.client_meter import Counters

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from harbor_satellite.registry.api import Registry
    from harbor_satellite.registry.auth import Credentials
    from harbor_satellite.registry.cosign import RegistryAccess


class Connections:
    """Open registries of one run; close it to give their sockets back.

    The satellite's credentials go to the registry it was registered with, and to no other: a state that
    names another registry gets that registry's anonymous view.
    """

    def __init__(
        self,
        *,
        home_url: str,
        credentials: Credentials | None,
        target: Registry,
        verify: bool | str = True,
        is_only: bool = False,
        home: HttpRegistry | None = None,
        local_access: RegistryAccess | None = None,
        on_read: Callable[[int], None] | None = None,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            home_url: the registry of the registration; empty: there is none, and states must name theirs.
            credentials: for that registry alone.
            target: the local registry; closed by whoever opened it.
            verify: False, or the path of a CA bundle.
            is_only: copy everything from ``home_url``, whatever a state names.
            home: the registry of ``home_url``, opened by an earlier run and left open for the next: it is logged in.
            local_access: how another program reaches the local registry; None: it cannot.
            on_read: told of each piece of a body that is read from a source; what it raises ends the read.
            receive_buffer_bytes: of each source's sockets; None: the system's choice.
        """
        self.target = target
        self.local_access = local_access
        self._on_read = on_read
        self._receive_buffer_bytes = receive_buffer_bytes
        if home:
            home.on_read = on_read
        self._home_url = home_url
        self._credentials = credentials
        self._verify = verify
        self._is_only = is_only
        self._sources: dict[str, HttpRegistry] = {registry_host(home_url): home} if home else {}
        self._kept = home
        self._before = home.counters if home else Counters()
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            for source in self._sources.values():
                if source is not self._kept:
                    source.close()
            self._sources.clear()

    def source(self, url: str) -> HttpRegistry:
        """Return the registry that a state names; empty, or the same host, means the one of the registration."""
        if self._is_only or not url:
            url = self._home_url
        if not url:
            raise InvalidInputError("the state names no registry to copy from")
        host = registry_host(url)
        with self._guard:
            if host not in self._sources:
                is_home = bool(self._home_url) and host == registry_host(self._home_url)
                self._sources[host] = HttpRegistry(
                    self._home_url if is_home else url,
                    credentials=self._credentials if is_home else None,
                    verify=self._verify,
                    on_read=self._on_read,
                    receive_buffer_bytes=self._receive_buffer_bytes,
                )
            return self._sources[host]

    @property
    def requests(self) -> int:
        """Requests that this run sent to all sources so far."""
        return sum(source.counters.requests for source in self._sources.values()) - self._before.requests

    @property
    def bytes_read(self) -> int:
        """Bytes of bodies that this run read from all sources so far."""
        return sum(source.counters.bytes_read for source in self._sources.values()) - self._before.bytes_read


def registry_host(url: str) -> str:
    """Return ``host[:port]`` of a registry's URL; a path behind it is dropped.

    Raises:
        InvalidInputError: it is neither a URL nor a host.
    """
    host = url.split("://", 1)[-1].partition("/")[0]
    return Reference(host, "any", "any").registry
