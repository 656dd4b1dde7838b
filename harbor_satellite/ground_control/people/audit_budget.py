"""How many refusals are listed one by one, and which are only counted. In memory; each replica for itself."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final

_WINDOW_SECONDS: Final = 60.0
_EVERYBODY: Final = ""  # stands for all addresses that are not remembered, and for all together


@dataclass(frozen=True, slots=True)
class Overflow:
    """Refusals of an address within a minute that were not listed."""

    address: str
    count: int


@dataclass(slots=True)
class _Window:
    started: float
    listed: int = 0
    counted: int = 0


class RefusalBudget:
    """Lists so many refusals of an address a minute, so many of all together, and counts the others.

    Args:
        per_address: listed of one address in a minute.
        in_all: listed of all in a minute: many addresses together must not fill the database either.
        capacity: addresses remembered at most.
    """

    def __init__(self, per_address: int = 20, in_all: int = 300, capacity: int = 1000) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._capacity = capacity
        self._lock = Lock()
        self._windows: OrderedDict[str, _Window] = OrderedDict()  # the oldest first
        self._all = _Window(0.0)
        self._forgotten = 0

    def take(self, address: str, now: float) -> tuple[bool, tuple[Overflow, ...]]:
        """Count a refusal.

        Args:
            address: whose.
            now: seconds of a clock that never goes back.

        Returns:
            Whether it is to be listed; and what was counted in minutes that are over, each told once.
        """
        with self._lock:
            ended = self._end_windows(now)
            window = self._windows.get(address)
            if window is None:
                window = self._windows[address] = _Window(now)
            if len(self._windows) > self._capacity:
                self._forgotten += self._windows.popitem(last=False)[1].counted
            if window.listed >= self._per_address or self._all.listed >= self._in_all:
                window.counted += 1
                return False, ended
            window.listed += 1
            self._all.listed += 1
            return True, ended

    def _end_windows(self, now: float) -> tuple[Overflow, ...]:
        ended: list[Overflow] = []
        if now - self._all.started >= _WINDOW_SECONDS:
            self._all = _Window(now)
            if self._forgotten:
                ended.append(Overflow(_EVERYBODY, self._forgotten))
                self._forgotten = 0
        while self._windows:
            address, oldest = next(iter(self._windows.items()))
            if now - oldest.started < _WINDOW_SECONDS:
                break
            del self._windows[address]
            if oldest.counted:
                ended.append(Overflow(address, oldest.counted))
        return tuple(ended)
