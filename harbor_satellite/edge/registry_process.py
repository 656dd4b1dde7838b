"""The process of a registry that the agent runs: where it listens, what it is started with, its configuration.

What must not live here: which registry it is to be (``own_registry``), and the plan of all services.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from harbor_satellite.edge.own_registry import HTPASSWD, WRITER, Place, registry_folder
from harbor_satellite.edge.services import Service
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.docker import FORWARD_ADDRESS
from harbor_satellite.registry.layout_files import make_directory, storage_errors
from harbor_satellite.registry.server_process import parse_listen
from harbor_satellite.registry.tls_pair import believed_name
from harbor_satellite.registry.zot import (
    SHORTEST_RETENTION_SECONDS,
    ZotSettings,
    check_on_demand,
    verify_config,
    zot_config,
)
from harbor_satellite.satellite.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harbor_satellite.settings import SatelliteSettings

_LOG = logging.getLogger(__name__)
CLI: Final = (sys.executable, "-c", "from harbor_satellite.cli import main; main()")
LOOPBACK: Final = "127.0.0.1"
_FORWARD: Final = (
    "import sys; sys.path.append(sys.argv[1]); from harbor_satellite.edge.forward import main; main(sys.argv[2:])"
)
# What a fetch leaves behind that was killed makes every later pull by tag hang (project-zot/zot#4357).
_WITHOUT_LEFTOVERS: Final = 'find "$3" -type d -name .sync -prune -exec rm -rf {} +; exec "$0" "$1" "$2"'
# What a registry has no use for; an empty value takes a variable away.
_NO_SECRETS: Final = {
    f"HARBOR_SATELLITE_{name}": "" for name in ("TOKEN", "TOKEN_FILE", "SOURCE_PASSWORD", "LOCAL_REGISTRY_PASSWORD")
}


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how a registry listens."""

    host: str
    port: int
    url: str
    """By which the site itself reaches it."""
    certificate: Path | None = None
    key: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Return what is read once, when the registry starts."""
        return tuple(path for path in (self.certificate, self.key) if path)


def listening_of(settings: SatelliteSettings) -> Listening:
    """Say where the registry listens, and how the site reaches it.

    Raises:
        InvalidInputError: it may not listen there, or nobody would believe its certificate.
    """
    host, port = parse_listen(settings.registry_listen)
    variable = f"HARBOR_SATELLITE_REGISTRY_LISTEN={settings.registry_listen}"
    if port == 0:
        raise InvalidInputError(f"{variable}: the runtimes need a port that stays; 0 takes any")
    certificate, key = settings.registry_tls_certificate, settings.registry_tls_key
    if bool(certificate) != bool(key):
        raise InvalidInputError("HARBOR_SATELLITE_REGISTRY_TLS_CERTIFICATE and …_TLS_KEY go together")
    if certificate and key:
        certificate, key = certificate.absolute(), key.absolute()
        name = believed_name(certificate, key, settings.local_registry_ca, _names(settings, host))
        return Listening(host, port, f"https://{_bracketed(name)}:{port}", certificate, key)
    if not _is_loopback(host) and not settings.registry_is_open:
        raise InvalidInputError(
            f"{variable}: beyond the loopback a registry needs TLS: set HARBOR_SATELLITE_REGISTRY_TLS_CERTIFICATE and "
            "…_TLS_KEY; or, where everybody on that network may read along, HARBOR_SATELLITE_REGISTRY_IS_OPEN=true"
        )
    return Listening(host, port, f"http://{_bracketed(reachable(host))}:{port}")


def _names(settings: SatelliteSettings, host: str) -> tuple[str, ...]:
    """Return the names under which the site may reach its registry: a certificate for the network may lack some."""
    own = settings.local_registry_url.partition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")
    given = (own,) if own and "local_registry_url" in settings.model_fields_set else ()
    near = (reachable(host), "localhost") if _is_loopback(host) or _is_everywhere(host) else (host,)
    return tuple(dict.fromkeys((*near, *given)))


def is_at(listen: str, url: str) -> bool:
    """Tell whether a URL, under whatever name, leads to who listens on this machine at ``HOST:PORT``."""
    host, port = parse_listen(listen)
    try:
        there = urlsplit(url)
        other_port = there.port or (443 if there.scheme == "https" else 80)
    except ValueError:
        return False
    if other_port != port:
        return False
    if there.hostname == host:
        return True
    addresses = _addresses(there.hostname or "")
    return any(map(_is_here, addresses)) if _is_everywhere(host) else not addresses.isdisjoint(_addresses(host))


def _addresses(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def _is_here(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind((address, 0))  # which only an address of this machine allows
    except OSError:
        return False
    return True


def ca_of(settings: SatelliteSettings) -> str:
    """Return what the site itself holds the registry's certificate against; empty without TLS."""
    ca = settings.local_registry_ca or settings.registry_tls_certificate
    return str(ca.absolute()) if ca else ""


def process_of(name: str, settings: SatelliteSettings, place: Place, listening: Listening) -> Service:
    """Write the configuration of a registry on one root, checked, and return its process.

    Raises:
        InvalidInputError: Zot is not there or does not take the configuration; the one before stays.
        StorageError: the disk refuses.
    """
    with storage_errors(Path(place.root), "making the registry's folder"):
        make_directory(Path(place.root))
    # Zot keeps content as the embedded registry does: where Zot is gone, that serves what it left.
    if place.kind == "zot" and (shutil.which(settings.zot) or settings.registry_kind != "embedded"):
        return _zot(name, settings, place, listening)
    if settings.on_demand_registries:
        _LOG.warning("on-demand registries need Zot: the embedded registry has what is replicated, and no more")
    return _embedded(name, settings, place, listening)


def forward_of(url: str, ca: str) -> Service:
    """Return the process that gives Docker the registry under its own name; see ``edge/forward.py``.

    Args:
        url: of the registry.
        ca: what its certificate is held against; empty: the system's.
    """
    root = str(Path(__file__).resolve().parents[2])
    argv = (sys.executable, "-I", "-S", "-c", _FORWARD, root, FORWARD_ADDRESS, "80", url, *([ca] if ca else []))
    return Service("forward", argv, _NO_SECRETS, revision=_revision(b"", [Path(ca)] if ca else []))


def _zot(name: str, settings: SatelliteSettings, place: Place, listening: Listening) -> Service:
    folder = registry_folder(settings.data_dir)
    text = zot_config(
        ZotSettings(
            root=Path(place.root),
            host=listening.host,
            port=listening.port,
            htpasswd=folder / HTPASSWD,
            writer=WRITER,
            anonymous_read=settings.registry_anonymous_read,
            retention_seconds=settings.registry_retention_seconds,
            certificate=listening.certificate,
            key=listening.key,
            on_demand=settings.on_demand_registries,
        )
    )
    path = folder / f"zot-{name}.json"
    program = program_of(settings)
    argv: tuple[str, ...] = (program, "serve", str(path))
    if settings.on_demand_registries:
        check_on_demand(program)
        argv = ("/bin/sh", "-c", _WITHOUT_LEFTOVERS, *argv, place.root)
    _apply(program, path, text.encode())
    return Service(name, argv, _NO_SECRETS, revision=_revision(text.encode(), listening.files))


def program_of(settings: SatelliteSettings) -> str:
    """Return the path of Zot.

    Raises:
        InvalidInputError: there is none.
    """
    found = shutil.which(settings.zot)
    if found is None:
        raise InvalidInputError(f"there is no program {settings.zot!r} (HARBOR_SATELLITE_ZOT)")
    return str(Path(found).absolute())


def _apply(program: str, path: Path, text: bytes) -> None:
    """Put a configuration in its place if Zot takes it.

    Raises:
        InvalidInputError: it does not, or there is none; the file that was there stays.
    """
    if path.exists() and path.read_bytes() == text:
        return
    candidate = path.with_name(f"candidate-{path.name}")  # Zot goes by the ending
    write_atomically(candidate, text)
    try:
        verify_config(program, candidate)
        candidate.replace(path)
    finally:
        candidate.unlink(missing_ok=True)


def _embedded(name: str, settings: SatelliteSettings, place: Place, listening: Listening) -> Service:
    seconds = max(settings.registry_retention_seconds, SHORTEST_RETENTION_SECONDS)
    options = {
        "--root": place.root,
        "--listen": f"{_bracketed(listening.host)}:{listening.port}",
        "--htpasswd": str(registry_folder(settings.data_dir) / HTPASSWD),
        "--writer": WRITER,
        "--retention-seconds": str(seconds),
    }
    if listening.certificate:
        options |= {"--tls-certificate": str(listening.certificate), "--tls-key": str(listening.key)}
    words = [word for option in options.items() for word in option]
    if not settings.registry_anonymous_read:
        words.append("--authenticated-read")
    return Service(name, (*CLI, "edge", "registry", *words), _NO_SECRETS, revision=_revision(b"", listening.files))


def _revision(text: bytes, files: Iterable[Path]) -> str:
    """Return what changes with the configuration that a process reads when it starts: a new certificate, too."""
    found = hashlib.sha256(text)
    for path in files:
        with storage_errors(path, "reading the registry's certificate"):
            found.update(path.read_bytes())
    return found.hexdigest()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_everywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def reachable(host: str) -> str:
    """Return the address by which this machine reaches who listens there."""
    if not _is_everywhere(host):
        return host
    return "::1" if ":" in host else LOOPBACK


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
