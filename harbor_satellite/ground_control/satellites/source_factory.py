"""Opening the source of a Ground Control by its kind, from plain values."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harbor_satellite.ground_control.satellites.sources import HarborSource, OciSource
from harbor_satellite.harbor.client import HarborClient
from harbor_satellite.registry.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Literal

    from pydantic import SecretStr

    from harbor_satellite.ground_control.satellites.sources import Source


@contextlib.contextmanager
def open_source(
    kind: Literal["harbor", "oci"],
    url: str,
    username: str,
    password: SecretStr,
    *,
    verify: bool | str = True,
    htpasswd: Path | None = None,
    robot_duration_days: int = 30,
) -> Iterator[Source]:
    """Open the source that hands out the satellites' credentials.

    Args:
        kind: ``harbor`` (robot accounts) or ``oci`` (any other registry).
        url: the registry as the centre reaches it.
        username: who may manage robot accounts; not used for ``oci``.
        password: theirs.
        verify: False, or the path of a CA bundle.
        htpasswd: kind ``oci``: the file of the registry's users, kept by Ground Control.
        robot_duration_days: kind ``harbor``: life of a robot account.
    """
    if kind == "oci":
        yield OciSource(htpasswd)
        return
    with HarborClient(url, username, password, verify=tls_context(verify)) as client:
        yield HarborSource(client, duration_days=robot_duration_days)
