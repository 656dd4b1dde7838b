"""Counts of bytes as people write them."""

from __future__ import annotations

from typing import Final

from harbor_satellite.errors import InvalidInputError

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


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
