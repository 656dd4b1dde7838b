"""Counting HTTP/1.1 requests in a stream of bytes, also pipelined ones and those with bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD_MAX_BYTES: Final = 64 * 1024
_BLANK_LINE: Final = b"\r\n\r\n"
_TLS_HANDSHAKE: Final = b"\x16"


class RequestCounter:
    """Finds the heads of requests in what one client sends over one connection.

    A stream that is no HTTP/1.1 (TLS, say) is not looked at any further.
    """

    def __init__(self, on_request: Callable[[str], object]) -> None:
        """Start at the beginning of a connection.

        Args:
            on_request: told of each request, as ``METHOD target``.
        """
        self._on_request = on_request
        self._pending = bytearray()
        self._body_left = 0
        self._is_chunked = False
        self._is_http = True

    def feed(self, data: bytes) -> None:
        """Take the next bytes, however they are cut."""
        if not self._is_http:
            return
        self._pending += data
        while self._step():
            pass

    def _step(self) -> bool:
        """Consume one head, body or chunk; False if more bytes are needed."""
        if self._body_left:
            taken = min(self._body_left, len(self._pending))
            del self._pending[:taken]
            self._body_left -= taken
            return bool(self._pending)
        if self._is_chunked:
            return self._chunk()
        if self._pending[:1] == _TLS_HANDSHAKE:
            self._is_http = False
            return False
        end = self._pending.find(_BLANK_LINE)
        if end >= 0:
            head = bytes(self._pending[:end])
            del self._pending[: end + len(_BLANK_LINE)]
            return self._head(head)
        self._is_http = len(self._pending) <= _HEAD_MAX_BYTES
        return False

    def _head(self, head: bytes) -> bool:
        first, *lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
        method, _, rest = first.partition(" ")
        target, _, version = rest.rpartition(" ")
        if not version.startswith("HTTP/1."):
            self._is_http = False
            return False
        self._on_request(f"{method} {target}")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._is_chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        self._body_left = 0 if self._is_chunked else int(headers.get("content-length") or 0)
        return bool(self._pending)

    def _chunk(self) -> bool:
        end = self._pending.find(b"\r\n")
        if end < 0:
            return False
        size = int(bytes(self._pending[:end]).partition(b";")[0] or b"0", 16)
        if size:
            del self._pending[: end + 2]
            self._body_left = size + 2  # bytes; each chunk ends with a line break
            return bool(self._pending)
        # The last chunk: trailers, if any, and a blank line follow.
        closing = self._pending.find(_BLANK_LINE, end)
        if closing < 0:
            return False
        del self._pending[: closing + len(_BLANK_LINE)]
        self._is_chunked = False
        return bool(self._pending)
