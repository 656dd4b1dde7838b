"""Images of other projects that the pipeline uses, in one place. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ci.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BUILDER: Final = "builder"
COSIGN: Final = "cosign"
ORAS: Final = "oras"
SYFT: Final = "syft"
ZOT: Final = "zot"

TOOLS: Final = {
    # Everything is put together in it: Debian trixie's dpkg-deb, and pip of the images' Python.
    BUILDER: "docker.io/library/python:3.13-slim-trixie",
    # Signs and verifies; and signs states, inside the image of ground-control.
    COSIGN: "gcr.io/projectsigstore/cosign:v3.1.3",
    # Reads manifests at registries, and pushes the chart.
    ORAS: "ghcr.io/oras-project/oras:v1.3.0",
    # Says what is in an image.
    SYFT: "docker.io/anchore/syft:v1.38.0",
    # The local registry, inside the image of satellite where there is one for the platform.
    ZOT: "ghcr.io/project-zot/zot:v2.1.20",
}


def parse_tools(pairs: Sequence[str]) -> Mapping[str, str]:
    """Return which tools are to be other images than the table's.

    Args:
        pairs: `NAME=REFERENCE`; the last of a name counts.

    Raises:
        UsageError: a name that is not in the table, or no reference.
    """
    chosen = {}
    for pair in pairs:
        name, _, reference = pair.partition("=")
        if name not in TOOLS or not reference:
            raise UsageError(f"tool {pair!r}: it has to be NAME=REFERENCE, with a name of {', '.join(sorted(TOOLS))}")
        chosen[name] = reference
    return chosen


def tool(name: str, chosen: Mapping[str, str]) -> str:
    """Return the image of a tool: what was chosen, else the table's.

    Args:
        name: BUILDER, COSIGN, …
        chosen: see `parse_tools`.
    """
    return chosen.get(name, TOOLS[name])
