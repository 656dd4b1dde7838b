"""The command line as others see it: a one-time token is taken away from it before anything else happens.

Standard library only, and little of it: everything that is imported before lengthens the moment in which `ps` shows it.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_OPTION: Final = "--token"
_HIDDEN: Final = "-"
_STANDARD_INPUT: Final = 0
_MAX_LENGTH: Final = 5000
"""More than a token may have, which is said later; less than a pipe takes in without anybody reading it."""


def hide_token() -> None:
    """Start this process anew without the token of `edge register --token …`, if one is on its command line.

    It comes back on standard input, from a pipe: not by the environment, which children inherit and which is in core
    dumps' records. The process stays the same one for whoever started it.
    """
    arguments, token = without_token(sys.argv[1:])
    if token is None:
        return
    before = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
    if sys.orig_argv[len(before) :] != sys.argv[1:]:
        return  # called as a function by a program: the command line is that program's
    reading, writing = os.pipe()
    os.write(writing, token[:_MAX_LENGTH].encode(errors="replace") + b"\n")
    os.close(writing)
    os.dup2(reading, _STANDARD_INPUT)
    os.set_inheritable(_STANDARD_INPUT, True)  # where it was closed before, the pipe took its place
    os.execv(sys.executable, [*before, *arguments])  # noqa: S606  (this same program)


def without_token(arguments: list[str]) -> tuple[list[str], str | None]:
    """Return the arguments with the token left to standard input, and the token; None where there is none to hide."""
    hidden, token = list(arguments), None
    start = arguments.index("register") + 1 if "register" in arguments else len(arguments)
    for place in range(start, len(arguments)):
        name, equals, value = arguments[place].partition("=")
        if name != _OPTION:
            continue
        at = place if equals else place + 1
        value = value if equals else "".join(arguments[at : at + 1])
        if value not in {"", _HIDDEN}:
            hidden[at], token = (f"{_OPTION}={_HIDDEN}" if equals else _HIDDEN), value
    return hidden, token
