"""Progress artifacts of long copies: made only once a copy takes long, and updated seldom."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EVERY_SECONDS = 5.0  # an update costs the server 35 ms
_LAST_UPDATE_SECONDS = 2.0
_HUNDRED = 100.0
_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def show_progress(label: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Give a callback that counts bytes, and show them as a progress artifact while the block runs.

    Args:
        label: what is being copied.
        total_bytes: what it will come to at most; 0: unknown, then nothing is shown.
    """
    counted = 0
    guard = threading.Lock()
    done = threading.Event()

    def count(size: int) -> None:
        nonlocal counted
        with guard:
            counted += size

    def show(artifact: UUID | None) -> UUID | None:
        progress = min(_HUNDRED, _HUNDRED * counted / total_bytes)
        if artifact is not None:
            update_progress_artifact(artifact, progress)
            return artifact
        made = create_progress_artifact(progress, description=f"copying {label}")
        return made if isinstance(made, UUID) else None

    def watch() -> None:
        artifact: UUID | None = None
        while not done.wait(_EVERY_SECONDS) or artifact is not None:
            try:
                artifact = show(artifact)
            except (PrefectException, httpx.HTTPError, OSError) as error:
                _LOG.debug("progress not shown label=%s reason=%s", label, error)
            if done.is_set():
                return

    if not total_bytes:
        yield count
        return
    # The run's context travels with the thread: the artifact belongs to this task run.
    watcher = threading.Thread(target=contextvars.copy_context().run, args=(watch,), daemon=True)
    watcher.start()
    try:
        yield count
    finally:
        done.set()
        watcher.join(_LAST_UPDATE_SECONDS)  # images never wait for Prefect
