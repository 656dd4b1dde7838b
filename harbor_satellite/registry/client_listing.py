"""Lists that come in pages: tags, repositories, referrers.

What lives here: following ``Link`` within bounds, and reading each page. What must not: HTTP, or what a list is for.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import httpx

from harbor_satellite.errors import RemoteError, SizeLimitError, UntrustedDataError
from harbor_satellite.registry.client_urls import next_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harbor_satellite.registry.client_api import Call, Reply

PAGE_SIZE: Final = 1000  # entries asked for; a page may be shorter
PAGE_MAX_BYTES: Final = 16 * 1024 * 1024  # bytes; some registries send everything at once, whatever was asked
ENTRIES_MAX: Final = 1_000_000
_PAGES_MAX: Final = 10_000
_RESTARTS: Final = 3  # a list that changes under the reader more often than this is given up


class ListChangedError(Exception):
    """A page that the registry itself had named is gone; the list must be read again. Never leaves the client."""


def pages(send: Callable[[Call], Reply], first: Call, reply: Reply) -> Iterator[Reply]:
    """Give the answer of each page, ``reply`` being that to the first call.

    Raises:
        ListChangedError: a later page is gone.
        RemoteError: a page is refused, or said to be on another host.
        SizeLimitError: more pages than any real list has.
        UntrustedDataError: the pages go round in a circle.
    """
    seen = {first.url}
    for _ in range(_PAGES_MAX):
        if reply.status == httpx.codes.NOT_FOUND and len(seen) > 1:
            raise ListChangedError
        if reply.status != httpx.codes.OK:
            raise reply.refused(first.what)
        yield reply
        following = next_page(reply.url, ", ".join(reply.headers.get_list("link")), first.what)
        if following is None:
            return
        if following in seen:
            raise UntrustedDataError(f"{first.what}: the pages go round in a circle")
        seen.add(following)
        reply = send(replace(first, url=following))
    raise SizeLimitError(f"{first.what}: more than {_PAGES_MAX} pages")


def name_list(send: Callable[[Call], Reply], first: Call, key: str) -> tuple[str, ...]:
    """Return the names under ``key`` of every page, each once, sorted; empty if the list does not exist.

    Raises:
        RemoteError: a page is refused, or the list keeps changing while it is read.
        SizeLimitError: more entries than any real list has.
        UntrustedDataError: a page is not what it should be.
    """
    for _ in range(_RESTARTS):
        names: set[str] = set()
        reply = send(first)
        if reply.status == httpx.codes.NOT_FOUND:
            return ()
        try:
            for page in pages(send, first, reply):
                names.update(_names(page.body, key, first.what))
                if len(names) > ENTRIES_MAX:
                    raise SizeLimitError(f"{first.what}: more than {ENTRIES_MAX} entries")
        except ListChangedError:
            # Zot answers 404 when the tag that the next page starts after was deleted meanwhile (measured).
            continue
        return tuple(sorted(names))
    raise RemoteError(f"{first.what}: the list changes faster than it can be read", retryable=True)


def _names(body: bytes, key: str, what: str) -> list[str]:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UntrustedDataError(f"{what}: the answer is not JSON") from error
    # Registries written in Go send null for an empty list.
    names = (document.get(key) or []) if isinstance(document, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UntrustedDataError(f"{what}: the answer has no list of {key}")
    return names
