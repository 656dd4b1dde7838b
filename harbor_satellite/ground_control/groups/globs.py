"""Globs as Harbor's rules know them, matched in time that grows with the name's length only. Pure.

A regular expression would do, but for patterns such as ``*a*a*a*b``, over which it goes back and forth for hours:
here all places in the pattern where a match could stand are one number, moved on by each character of the name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

_ANY: Final = "**"
_ALTERNATIVES_MOST: Final = 64  # after braces are written out
_TOKEN: Final = re.compile(r"\*\*+|\*|\?|\[[!^]?[^\[\]]+\]|[a-zA-Z0-9._/+-]")
_SPECIAL: Final = frozenset("*?[{")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_ANY_DEPTH: Final = re.compile(r"(?:^|(?<=/))\*\*/")


@dataclass(frozen=True, slots=True)
class Glob:
    """One pattern; equal ones have equal text."""

    text: str
    _alternatives: tuple[_Places, ...] = field(compare=False, repr=False)

    @property
    def is_literal(self) -> bool:
        """Whether it matches nothing but itself."""
        return not _SPECIAL & set(self.text)

    def matches(self, name: str) -> bool:
        """Tell whether the whole name matches."""
        return any(places.match(name) for places in self._alternatives)


@lru_cache(maxsize=1024)
def parse_glob(text: str) -> Glob:
    """Read a pattern.

    Raises:
        InvalidInputError: unbalanced braces or brackets, a character that no name has, or too many alternatives.
    """
    return Glob(text, tuple(_Places(pattern) for pattern in _written_out(text)))


class _Places:
    """One alternative: bit i stands for the place before token i."""

    def __init__(self, pattern: str) -> None:
        tokens = _tokens(pattern)
        self._tests = tuple(_test(token) for token in tokens)
        self._stars = sum(1 << number for number, token in enumerate(tokens) if token[0] == "*")
        self._end = 1 << len(tokens)
        self._masks: dict[str, int] = {}

    def match(self, name: str) -> bool:
        places = self._free(1)
        for character in name:
            fits = places & self._fits(character)
            # A star stays where it is; any other token is passed.
            places = self._free((fits & self._stars) | ((fits & ~self._stars) << 1))
            if not places:
                return False
        return bool(places & self._end)

    def _free(self, places: int) -> int:
        # A star may match nothing; no two follow each other, so one step is enough.
        return places | ((places & self._stars) << 1)

    def _fits(self, character: str) -> int:
        mask = self._masks.get(character)
        if mask is None:
            mask = sum(1 << number for number, fits in enumerate(self._tests) if fits(character))
            if len(self._masks) < _ALTERNATIVES_MOST * 2:  # names have fewer kinds of characters than that
                self._masks[character] = mask
        return mask


def _written_out(text: str) -> list[str]:
    """Return the pattern without braces, once for each choice; ``**/`` in front of a component may be nothing."""
    waiting, done = [_ANY_DEPTH.sub("{,**/}", text)], []
    while waiting:
        pattern = waiting.pop()
        found = _BRACES.search(pattern)
        if found is None:
            done.append(pattern)
        else:
            # The innermost first; each choice is put into the whole.
            waiting += [pattern[: found.start()] + choice + pattern[found.end() :] for choice in found[1].split(",")]
        if len(waiting) + len(done) > _ALTERNATIVES_MOST:
            raise InvalidInputError(f"more than {_ALTERNATIVES_MOST} alternatives: {text[:200]!r}")
    return done


def _tokens(pattern: str) -> list[str]:
    tokens: list[str] = []
    place = 0
    while place < len(pattern):
        found = _TOKEN.match(pattern, place)
        if found is None:
            raise InvalidInputError(f"not a pattern, at {pattern[place : place + 20]!r}")
        token = found[0][:2] if found[0].startswith("**") else found[0]
        if tokens and token[0] == "*" and tokens[-1][0] == "*":
            tokens[-1] = max(token, tokens[-1], key=len)
        else:
            tokens.append(token)
        place = found.end()
    return tokens


def _test(token: str) -> Callable[[str], bool]:
    if token == _ANY:
        return lambda _: True
    if token in {"*", "?"}:
        return lambda character: character != "/"
    if token[0] == "[":
        chosen, is_negated = _chosen(token)
        return lambda character: character != "/" and (character in chosen) != is_negated
    return lambda character: character == token


def _chosen(token: str) -> tuple[frozenset[str], bool]:
    is_negated = token[1] in "!^"
    inside = token[2:-1] if is_negated else token[1:-1]
    chosen: set[str] = set()
    place = 0
    while place < len(inside):
        if inside[place + 1 : place + 2] == "-" and place + 2 < len(inside):
            first, last = ord(inside[place]), ord(inside[place + 2])
            if not first <= last < 128:  # noqa: PLR2004 - ASCII
                raise InvalidInputError(f"not a range of characters: {token[:20]!r}")
            chosen.update(map(chr, range(first, last + 1)))
            place += 3
        else:
            chosen.add(inside[place])
            place += 1
    return frozenset(chosen), is_negated
