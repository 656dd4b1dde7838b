"""Auth challenges: reading ``WWW-Authenticate`` (RFC 9110, 11.6.1) without trusting its shape."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))\s*(?:,|$)')
_TOKEN68: Final = re.compile(r"\s*[A-Za-z0-9._~+/-]+=*\s*(?:,|$)")  # RFC 9110, 11.2: Negotiate and NTLM send one
_SCHEME: Final = re.compile(rf"\s*,?\s*({_WORD})(?:\s+|$|,)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way a server asks to be authenticated to: a lower-case scheme and its parameters."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Read every challenge of a ``WWW-Authenticate`` header; what cannot be read ends the list.

    Parameter names are lower-cased; values keep their case, with quotes and escapes removed.
    """
    challenges: list[Challenge] = []
    position = 0
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            break
        position = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = parameter.end()
        if (
            not parameters
            and (token68 := _TOKEN68.match(header, position))
            and not header[: scheme.end()].endswith(",")
        ):
            position = token68.end()
        challenges.append(Challenge(scheme[1].lower(), parameters))
    return tuple(challenges)
