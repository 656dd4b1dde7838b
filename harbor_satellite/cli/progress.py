"""A bar that counts bytes, for people at a terminal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def show_progress(*, is_shown: bool, what: str = "copying") -> Iterator[Callable[[int], None]]:
    """Give a callback that counts bytes; they are shown on standard error while the block runs.

    Args:
        is_shown: whether anybody looks.
        what: is being done.
    """
    if not is_shown:
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415  (only for people)
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda count: progress.advance(bar, count)
