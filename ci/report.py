"""The table that closes a run: what each platform's image weighs, how long its smoke run took, its digest. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER: Final = ("image", "platform", "size", "smoke", "digest")
_RIGHT: Final = frozenset({"size", "smoke"})


@dataclass(frozen=True)
class Row:
    """One platform of one image."""

    image: str
    platform: str
    size_bytes: int
    """What a pull transfers: manifest, config and compressed layers."""
    digest: str
    """Of the platform's manifest."""
    smoke_seconds: float | None = None
    """How long the smoke run took; None: there was none."""


def table(rows: Sequence[Row]) -> str:
    """Return the rows below a header, in columns; sizes in MB (10⁶ bytes), times in seconds."""
    cells = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADER))]
    return "\n".join(_line(line, widths) for line in cells)


def _cells(row: Row) -> tuple[str, ...]:
    smoke = "-" if row.smoke_seconds is None else f"{row.smoke_seconds:.1f} s"
    return row.image, row.platform, f"{row.size_bytes / 1e6:.1f} MB", smoke, row.digest


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = zip(_HEADER, cells, widths, strict=True)
    return "  ".join(
        cell.rjust(width) if name in _RIGHT else cell.ljust(width) for name, cell, width in columns
    ).rstrip()
