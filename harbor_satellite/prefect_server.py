"""Prefect's own command line, with garbage collected in a thread of its own.

``python -m harbor_satellite.prefect_server server start`` is ``prefect server start`` otherwise.

Prefect's server on SQLite stands still for a minute now and then: a collection that happens to run in the event
loop's thread drops a cursor whose connection is waiting, in another thread, for the database's write lock; the
drop waits for that connection, and the lock's holder waits for the event loop, until SQLite gives up after 60 s.
In a thread of its own the collection may wait as long as it likes. PostgreSQL does not know the problem.
"""

from __future__ import annotations

import gc
import threading
import time

from prefect.cli import app

_EVERY_SECONDS = 2.0


def main() -> None:
    """Run ``prefect`` with this process's arguments."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()
    app()


def _collect() -> None:
    while True:
        time.sleep(_EVERY_SECONDS)
        gc.collect()


if __name__ == "__main__":
    main()
