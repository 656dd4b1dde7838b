"""Prefect's own command line, made fit for SQLite: ``python -m harbor_satellite.prefect_server server start``.

Two things keep Prefect 3.8's server on SQLite from answering, with no more than a dozen clients:

- A transaction that reads first and writes later is refused at once ("database is locked") if another one
  committed in between; clients answer such a 503 by waiting 2, 4, 8 … seconds. So here every transaction takes
  the write lock at its beginning, and waits for its turn.
- A garbage collection that happens to run in the event loop's thread drops a cursor whose connection is waiting,
  in another thread, for the write lock; the drop waits for that connection, and the lock's holder for the event
  loop, until SQLite gives up after 60 s. So here garbage is collected in a thread of its own, which may wait.

PostgreSQL knows neither problem; a server of your own should run on it, and needs none of this.
"""

from __future__ import annotations

import gc
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from prefect.cli import app
from prefect.server.database.configurations import AioSqliteConfiguration

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

_EVERY_SECONDS: Final = 2.0
_begin_transaction = AioSqliteConfiguration.begin_transaction


def main() -> None:
    """Run ``prefect`` with this process's arguments."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()
    AioSqliteConfiguration.begin_transaction = _begin_immediately  # type: ignore[method-assign,assignment]
    app()


def _begin_immediately(
    self: AioSqliteConfiguration,
    session: Any,
    with_for_update: bool = False,  # noqa: ARG001, FBT001, FBT002  (Prefect's signature)
) -> AbstractAsyncContextManager[Any]:
    return _begin_transaction(self, session, with_for_update=True)


def _collect() -> None:
    while True:
        time.sleep(_EVERY_SECONDS)
        gc.collect()


if __name__ == "__main__":
    main()
