"""What the site's proxy to Prefect answers by itself, because an idle site need not ask it across the link.

Of what an idle worker says and asks every minute only the poll goes to the centre, which takes it for a sign of life.
What must not live here: the link (``link.py``).
"""

from __future__ import annotations

import json
import math
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""

HEARTBEAT_SECONDS: Final = 600
"""Between two heartbeats that cross the link; Prefect takes the worker to be offline after three of these."""
_FRESH_SECONDS: Final = 3600.0
"""A pool changes only when an operator pauses it, which polls see at once; and a run that arrives has it read anew."""
_UNKNOWN_SECONDS: Final = 6 * 3600.0  # for which a centre is believed not to know the short question
_LONGEST_SECONDS: Final = 3600  # ahead, for which a poll may ask
_KEPT_MAX: Final = 32
_KEPT_MAX_BYTES: Final = 64 * 1024  # of one answer
_HEARTBEAT: Final = re.compile(r"/work_pools/[^/]+/workers/heartbeat")
_POLL: Final = re.compile(r"/work_pools/[^/]+/get_scheduled_flow_runs")
_KEPT: Final = re.compile(r"/(?:work_pools|work_queues|deployments|flows)/[0-9A-Za-z._-]+|/admin/version")
_SOON_OLD: Final = "/deployments/"
"""Read several times at the start of a run, and never stale in the next one."""
_SOON_SECONDS: Final = 60.0
_FOR_GOOD: Final = "/flows/"
"""What a flow is called never changes."""
_OK: Final = 200
_NOTHING: Final = 204
_NO_SUCH_CALL: Final = frozenset({403, 404, 405})
_NOT_DUE: Final[Answer] = (200, {"content-type": "application/json"}, b"[]")
_DONE: Final = range(200, 300)
_NO_CSRF: Final[Answer] = (
    422,
    {"content-type": "application/json"},
    b'{"detail":"CSRF protection is disabled."}',
)
_NO_STORAGE: Final[Answer] = (
    200,
    {"content-type": "application/json"},
    b'{"default_result_storage_block_id":null}',
)
"""Results stay at the site: the gateway says so to whoever asks."""
_KNOWN: Final = {"/csrf-token": _NO_CSRF, "/admin/storage": _NO_STORAGE}
"""Asked for in every run, and answered in the same way by every centre."""


class LocalAnswers:
    """Remembers what the centre answered.

    Args:
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kept: dict[str, tuple[Answer, float]] = {}
        self._beaten_at = float("-inf")
        self._unknown_until = float("-inf")

    def question(self, method: str, path: str, body: bytes, now: datetime) -> str | None:
        """Return the path of the short question whether a poll would find anything; None: this is no such poll.

        Args:
            method: of the request.
            path: of the request, below the API.
            body: of the request.
            now: this moment, by the clock that the poll's moment is of.
        """
        if method != "POST" or not _POLL.fullmatch(path) or self._monotonic() < self._unknown_until:
            return None
        try:
            before = datetime.fromisoformat(json.loads(body)["scheduled_before"])
            seconds = math.ceil((before - now).total_seconds())
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        return f"{path.rpartition('/')[0]}/due/{min(max(seconds, 0), _LONGEST_SECONDS)}"

    def told(self, status: int) -> Answer | None:
        """Return what the poll is told once the short question was answered; None: it has to be asked itself."""
        if status in _NO_SUCH_CALL:  # an older centre
            self._unknown_until = self._monotonic() + _UNKNOWN_SECONDS
        return _NOT_DUE if status == _NOTHING else None

    def find(self, method: str, path: str) -> Answer | None:
        """Return the answer to a request; None: it has to cross the link."""
        now = self._monotonic()
        if method == "POST":
            is_heard = _HEARTBEAT.fullmatch(path) and now - self._beaten_at < HEARTBEAT_SECONDS
            return (204, {}, b"") if is_heard else None
        if method != "GET":
            return None
        if path in _KNOWN:
            return _KNOWN[path]
        kept = self._kept.get(path)
        fresh = _SOON_SECONDS if path.startswith(_SOON_OLD) else _FRESH_SECONDS
        return kept[0] if kept and now - kept[1] < fresh else None

    def note(self, method: str, path: str, answer: Answer) -> None:
        """Take note of what the centre answered."""
        status, _, body = answer
        if status not in _DONE:
            self.forget()
        elif method == "GET" and status == _OK and _KEPT.fullmatch(path) and len(body) <= _KEPT_MAX_BYTES:
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            self._kept[path] = answer, self._monotonic()
        elif method == "POST" and _HEARTBEAT.fullmatch(path):
            self._beaten_at = self._monotonic()
        elif method == "POST" and _POLL.fullmatch(path) and body.strip() not in {b"", b"[]"}:
            # A run is to see its pool as it is now.
            self._kept = {path: kept for path, kept in self._kept.items() if path.startswith(_FOR_GOOD)}

    def forget(self) -> None:
        """Forget everything: the centre may be another one when it is back."""
        self._kept.clear()
        self._beaten_at = float("-inf")


def sent_body(method: str, path: str, body: bytes) -> bytes:
    """Return what of a request's body crosses the link: a heartbeat says how seldom it does, so that Prefect waits."""
    if method != "POST" or not _HEARTBEAT.fullmatch(path):
        return body
    try:
        said = json.loads(body)
        seconds = max(HEARTBEAT_SECONDS, int(said.get("heartbeat_interval_seconds") or 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return body
    return json.dumps({**said, "heartbeat_interval_seconds": seconds}, separators=(",", ":")).encode()
