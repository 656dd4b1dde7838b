"""Which container runtimes a site wants to be configured, as a file that an unprivileged agent writes and root reads.

Everything in it is checked by whoever reads it: names of the known set, hosts by their grammar, a local registry on
this machine or behind TLS. What must not live here: touching the host (``satellite/host.py``).
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError, StorageError
from harbor_satellite.host_config.rendered import MirrorSettings
from harbor_satellite.state import config_values as check
from harbor_satellite.state.config import RUNTIME_NAMES

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES: Final = 256 * 1024
_OTHERS_WRITE: Final = 0o022
_KEYS: Final = frozenset({"runtimes", "local_url", "registries", "is_fallback", "needs_user", "ca"})


@dataclass(frozen=True, slots=True)
class RuntimeWish:
    """Which runtimes shall pull from the local registry, and how; none: what was done for the site is undone."""

    runtimes: tuple[str, ...]
    mirrors: MirrorSettings


def wish_bytes(wish: RuntimeWish) -> bytes:
    """Write a wish; the same wish gives the same bytes."""
    mirrors = wish.mirrors
    document = {
        "runtimes": list(wish.runtimes),
        "local_url": mirrors.local_url,
        "registries": list(mirrors.registries),
        "is_fallback": mirrors.is_fallback,
        "needs_user": mirrors.needs_user,
        "ca": mirrors.ca,
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def parse_wish(raw: bytes) -> RuntimeWish:
    """Read a wish that somebody without rights has written.

    Raises:
        InvalidInputError: anything in it is not what it should be.
    """
    try:
        document: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the wanted runtimes are not JSON: {error}") from error
    if not isinstance(document, dict) or set(document) != _KEYS:
        raise InvalidInputError(f"the wanted runtimes: not an object of {', '.join(sorted(_KEYS))}")
    ca = document["ca"]
    if not isinstance(ca, str) or not isinstance(document["local_url"], str):
        raise InvalidInputError("the wanted runtimes: local_url and ca are texts")
    mirrors = MirrorSettings(
        document["local_url"],
        check.hosts(document["registries"]),
        is_fallback=check.boolean(document["is_fallback"]),
        ca=ca,
        needs_user=check.boolean(document["needs_user"]),
    )
    if not mirrors.is_tls and not mirrors.is_loopback:
        raise InvalidInputError("the wanted runtimes: the local registry is neither on this machine nor behind TLS")
    return RuntimeWish(check.some_of(RUNTIME_NAMES)(document["runtimes"]), mirrors)


def read_wish(path: Path) -> RuntimeWish:
    """Read a wish from a file that its folder's owner or root has written, and nobody else can.

    Raises:
        InvalidInputError: it is a link, belongs to somebody else, is too large, or what it says is wrong.
        StorageError: it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        found, folder = os.fstat(handle), path.parent.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise InvalidInputError(f"{path} is not a file of its own")
        if found.st_uid not in {0, folder.st_uid} or found.st_mode & _OTHERS_WRITE:
            raise InvalidInputError(f"{path} can be written by others than the agent")
        raw = file.read(_MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
        raise InvalidInputError(f"{path} is larger than {_MAX_BYTES} bytes")
    return parse_wish(raw)
