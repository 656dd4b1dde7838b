"""Headers of a registry's answers, read without trusting their shape.

What lives here: header → value. What must not: any I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import DigestMismatchError
from harbor_satellite.oci.digest import Digest, is_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

_LENGTH_MAX_DIGITS: Final = 18  # below 2**63, and within what int() reads


def content_length(headers: Mapping[str, str], default: int) -> int:
    """Read ``Content-Length``; the default if it is absent or malformed."""
    text = headers.get("content-length") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LENGTH_MAX_DIGITS else default


def digest_header(headers: Mapping[str, str]) -> Digest | None:
    """Read ``Docker-Content-Digest``; None if it is absent or malformed."""
    text = headers.get("docker-content-digest") or ""
    return Digest.parse(text) if is_digest(text) else None


def check_digest_header(headers: Mapping[str, str], expected: Digest, what: str) -> None:
    """Check that a registry names content as we do, if it names it by the same algorithm.

    Raises:
        DigestMismatchError: it does not.
    """
    got = digest_header(headers)
    if got is not None and got.algorithm == expected.algorithm and got != expected:
        raise DigestMismatchError(f"{what}: digest mismatch: expected {expected}, the registry says {got}")
