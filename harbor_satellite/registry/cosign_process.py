"""One run of a program whose output and time are bounded.

What must not live here: which program, and what its output means.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_OUTPUT_MAX_BYTES: Final = 1024 * 1024
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended."""

    status: int | None
    """Its exit status; None: it took too long and was killed."""
    stdout: bytes
    """The first mebibyte."""
    stderr: bytes
    """The first mebibyte."""


def run_capped(argv: Sequence[str], environment: Mapping[str, str], folder: Path, timeout_seconds: float) -> Finished:
    """Run a program with exactly this environment; what it says beyond a mebibyte is read and dropped.

    Raises:
        OSError: it cannot be started.
    """
    with subprocess.Popen(  # noqa: S603  (argv is ours)
        list(argv),
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        late = threading.Event()

        def stop() -> None:
            if process.poll() is None:
                late.set()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(timeout_seconds, stop)
        timer.start()
        errors: list[bytes] = []
        reader = threading.Thread(target=lambda: errors.append(_read(process.stderr)))
        reader.start()
        try:
            output = _read(process.stdout)
            status = process.wait()
        finally:
            timer.cancel()
            stop()
            reader.join()
    return Finished(None if late.is_set() else status, output, b"".join(errors))


def _read(pipe: IO[bytes] | None) -> bytes:
    kept = bytearray()
    while pipe is not None and (chunk := pipe.read(_READ_BYTES)):
        kept += chunk[: _OUTPUT_MAX_BYTES - len(kept)]
    return bytes(kept)
