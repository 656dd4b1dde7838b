"""What became of a file that others changed after us: their change, without ours. Pure."""

from __future__ import annotations

import difflib
import re
from typing import Final

_SECRET: Final = re.compile(r"(?i)(authorization|password|passwd|secret|token|\bauth\b)(\"?\s*[=:]\s*).+")

_MARK: Final = re.compile(r"https?://[^\"'\s]+|(?<=[\"'])/[^\"'\n]+|satellite\.zot|harbor-satellite")


def without_ours(before: str, ours: str, theirs: str) -> str | None:
    """Return the text before us with what others changed since; None: they changed the lines that we had written.

    Args:
        before: the text that we found.
        ours: what we made of it.
        theirs: what others made of that; if it has nothing of ours any more, as after an upgrade, it is all there is.
    """
    if not has_ours(before, ours, theirs):
        return theirs
    lines = ours.splitlines(keepends=True)
    taken_back = _edits(lines, before.splitlines(keepends=True))
    changed = _edits(lines, theirs.splitlines(keepends=True))
    if any(_meet(one, other) for one in taken_back for other in changed):
        return None
    merged: list[str] = []
    at = 0
    for start, end, put in sorted([*taken_back, *changed], key=lambda edit: edit[:2]):
        merged += [*lines[at:start], *put]
        at = end
    return "".join([*merged, *lines[at:]])


def has_ours(before: str, ours: str, theirs: str) -> bool:
    """Tell whether a text may have something of ours: of the URLs, folders and names that only we had brought."""
    marks = set(_MARK.findall(ours)) - set(_MARK.findall(before))
    return not marks or any(mark in theirs for mark in marks)


_Edit = tuple[int, int, list[str]]


def _edits(old: list[str], new: list[str]) -> list[_Edit]:
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return [(a, b, new[c:d]) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]


def _meet(one: _Edit, other: _Edit) -> bool:
    if one[0] == one[1] and other[0] == other[1]:
        return one[0] == other[0]  # two insertions at one place have no order
    # What is put right before or behind a part that goes is no change of that part.
    return one[0] < other[1] and other[0] < one[1]


def unified_diff(path: str, old: str | None, new: str | None) -> str:
    """Return a diff for people; values that look like secrets are left out of it."""
    lines = difflib.unified_diff(
        (old or "").splitlines(),
        (new or "").splitlines(),
        path if old is not None else "/dev/null",
        path if new is not None else "/dev/null",
        lineterm="",
    )
    return "\n".join(_SECRET.sub(r"\1\2…", line) for line in lines)
