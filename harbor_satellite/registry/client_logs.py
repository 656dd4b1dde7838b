"""Keeping secrets out of what the HTTP libraries log by themselves.

httpx logs every request's full URL at INFO, urllib3 at DEBUG; the query of a redirect to an object store is a secret
(a presigned URL). What lives here: cutting queries off. What must not: levels or handlers; those are the program's.
"""

from __future__ import annotations

import logging


def hide_queries() -> None:
    """Make httpx and urllib3 log URLs without their query; may be called any number of times."""
    for name in ("httpx", "urllib3.connectionpool"):
        # The same function is added once only.
        logging.getLogger(name).addFilter(_without_query)


def _without_query(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_cut(argument) for argument in record.args)
    return True


def _cut(argument: object) -> object:
    # httpx passes its own URL object, urllib3 the text of path and query.
    is_url = type(argument).__name__ == "URL" or (isinstance(argument, str) and "?" in argument)
    return str(argument).partition("?")[0] if is_url else argument
