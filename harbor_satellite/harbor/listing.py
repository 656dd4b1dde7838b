"""A listing that is whole: what is not in it is not there.

Harbor pages by offset. What is deleted between two pages moves the rest up by one, and the next page skips an item that
never went away. A selector that trusts such a listing takes an image out of a group, and sites delete it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import RemoteError, UntrustedDataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.harbor.client import HarborClient

_ATTEMPTS: Final = 3


def complete(
    client: HarborClient, path: str, params: Mapping[str, str | int], *, identity: str
) -> list[dict[str, Any]]:
    """Return every item of a listing once, read again if it changed while it was read.

    It is whole if Harbor counted the same on every page, and if as many different items came. Without its count, as
    behind a proxy that takes the header away, only a listing of one page is believed.

    Args:
        client: as whom to ask.
        path: below ``/api/v2.0``.
        params: query.
        identity: the key that tells items apart, such as ``digest``.

    Raises:
        RemoteError: see ``HarborClient.request``; or the listing changed at every attempt (retryable).
        UntrustedDataError: an item has no such key.
    """
    for _ in range(_ATTEMPTS):
        found: dict[str, dict[str, Any]] = {}
        counts: set[int] = set()
        pages = 0
        for page in client.pages(path, params):
            pages += 1
            if page.total_count is not None:
                counts.add(page.total_count)
            found |= {_key(client, path, item, identity): item for item in page.items}
        if counts == {len(found)} or (pages == 1 and not counts):
            return list(found.values())
    message = "the listing is not known to be whole: it changed while it was read, or its count is another"
    raise RemoteError(f"GET {path} at {client.url}: {message}", retryable=True)


def _key(client: HarborClient, path: str, item: Mapping[str, Any], identity: str) -> str:
    key = item.get(identity)
    if not isinstance(key, str | int):
        raise UntrustedDataError(f"GET {path} at {client.url}: an item has no {identity}")
    return str(key)
