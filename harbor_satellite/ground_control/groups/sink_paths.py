"""What a request to the sink asks for, read from its path. Pure.

Harbor puts the rule's destination namespace, the group, before the whole name at the source:
``/v2/edge-shops/acme/team/app/manifests/v1``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.reference import check_repository, reference_kind

_PATH: Final = re.compile(
    r"(?P<group>[^/]+)/(?:(?P<repository>.+)/)?"
    r"(?P<kind>manifests|blobs|tags|referrers)/(?P<reference>uploads/.*|[^/]*)",
    re.DOTALL,
)
_LONGEST: Final = 1024  # characters


@dataclass(frozen=True, slots=True)
class SinkPath:
    """The parts of a path."""

    group: str
    repository: str
    """As at the source."""
    kind: str
    """``manifests``, ``blobs``, ``tags`` or ``referrers``."""
    reference: str
    """A tag or digest; of ``tags`` the word ``list``; of a blob's upload ``uploads/…``."""


def parse_sink_path(path: str) -> SinkPath | None:
    """Read what stands behind ``/v2/``; None if it is no path of the registry protocol.

    Raises:
        InvalidInputError: repository, tag or digest breaks its rule.
    """
    found = _PATH.fullmatch(path) if len(path) <= _LONGEST else None
    if found is None:
        return None
    kind, reference = found["kind"], found["reference"]
    repository = check_repository(found["repository"] or "")
    is_upload = kind == "blobs" and reference.startswith("uploads/")
    if kind == "tags":
        if reference != "list":
            return None
    elif not is_upload and reference_kind(reference) == "tag" and kind != "manifests":
        raise InvalidInputError(f"not a digest: {reference[:160]!r}")
    return SinkPath(found["group"], repository, kind, reference)
