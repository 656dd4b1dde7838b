"""Values as people write them, on a command line or in a variable: sizes, URLs of registries. Pure."""

from __future__ import annotations

from typing import Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.digest import is_digest

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
SOURCE_VARIABLES: Final = "HARBOR_SATELLITE_SOURCE_USERNAME and HARBOR_SATELLITE_SOURCE_PASSWORD"
LOCAL_VARIABLES: Final = "HARBOR_SATELLITE_LOCAL_REGISTRY_USERNAME and HARBOR_SATELLITE_LOCAL_REGISTRY_PASSWORD"


def parse_size(text: str) -> int:
    """Read a count of bytes such as ``700M`` or ``4G``; K, M, G, T are decimal, Ki, Mi, Gi, Ti binary.

    Raises:
        InvalidInputError: it is none.
    """
    number = text.rstrip("KMGTiB")
    unit = text[len(number) :].removesuffix("B")
    factor = _UNITS.get(unit) or _BINARY_UNITS.get(unit)
    if not number.isascii() or not number.isdigit() or factor is None:
        raise InvalidInputError(f"not a size (such as 700M, 4G, 4GiB): {text[:80]!r}")
    return int(number) * factor


def refuse_user(url: str, what: str, advice: str) -> str:
    """Return a URL or a reference as it is, if no user or password is written into it.

    Args:
        url: of a registry or service, or the reference of an artifact, with or without a digest.
        what: where it was written, for the message.
        advice: where user and password belong.

    Raises:
        InvalidInputError: there is a user in it; the message shows nothing before the host.
    """
    head, at, tail = url.rpartition("@")
    if at and is_digest(tail):
        head, at, tail = head.rpartition("@")
    if at:
        raise InvalidInputError(f"{what} …@{tail[:200]} has a user in it, and a URL is shown in messages: {advice}")
    return url
