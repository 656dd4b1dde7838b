"""Blocking work beside the agent's event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Do something that blocks; it is left behind where the agent stops: nobody waits for it then."""
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
