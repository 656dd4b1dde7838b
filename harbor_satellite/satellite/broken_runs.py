"""Whether the site's last run was broken off: its process was stopped or killed, or the power went.

A file that is there while a run is under way. It is not forced to the disk: whatever is lost of it with the power was
a run of some seconds.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_FILE: Final = "run-under-way"
_DIGITS_MAX: Final = 6


def broken_runs(folder: Path) -> int:
    """Return how many runs in a row were broken off, the one that is under way included; 0: the last one ended.

    Args:
        folder: the satellite's.
    """
    try:
        text = (folder / _FILE).read_text()
    except FileNotFoundError:
        return 0
    except (OSError, ValueError):
        return 1
    return int(text) if text.isdecimal() and len(text) <= _DIGITS_MAX else 1


@contextlib.contextmanager
def note_run(folder: Path) -> Iterator[None]:
    """Have a run on record as broken off unless the context ends; the caller holds the site's lock."""
    path = folder / _FILE
    try:
        path.write_text(str(broken_runs(folder) + 1))
    except OSError as error:  # no reason not to run
        _LOG.debug("cannot write %s: %s", path, error.strerror)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
