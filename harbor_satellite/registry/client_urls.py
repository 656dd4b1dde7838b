"""Addresses a registry client meets: its own, and those a registry hands out (redirects, Location, Link).

What lives here: deciding which of them may be followed, and with whose secrets. What must not: any I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import httpx

from harbor_satellite.errors import InvalidInputError, RemoteError
from harbor_satellite.oci.reference import DOCKER_HUB

MAX_REDIRECTS: Final = 5
MAX_LINKS_PER_HEADER: Final = 16
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_DOCKER_HUB_NAMES: Final = frozenset({DOCKER_HUB, "index.docker.io"})
_DOCKER_HUB_HOST: Final = "registry-1.docker.io"
_HOST: Final = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9._-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_LOOPBACK: Final = re.compile(r"(?:localhost|[a-z0-9.-]+\.localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?")
_LINK: Final = re.compile(r"<([^<>]*)>([^<]*)")
_NEXT: Final = re.compile(r""";\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next(?=[\s;,]|$))""", re.IGNORECASE)
_CONTENT_RANGE: Final = re.compile(r"bytes\s+(?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """Where a registry is, and how messages and references name it."""

    name: str
    """``host[:port]`` as it was given."""
    url: httpx.URL
    """Scheme, host and port; no path."""


@dataclass(frozen=True, slots=True)
class ContentRange:
    """A ``Content-Range`` header; None where the server wrote ``*``."""

    first: int | None
    last: int | None
    size: int | None


def parse_address(text: str, *, plain_http: bool | None = None) -> RegistryAddress:
    """Read ``http://host:port``, ``https://host`` or a bare ``host[:port]``.

    A bare loopback host is spoken to over plain HTTP, any other over HTTPS, unless ``plain_http`` says otherwise.

    Raises:
        InvalidInputError: anything but scheme, host and port is in it, or scheme and ``plain_http`` disagree.
    """
    scheme, separator, rest = text.rpartition("://")
    name = rest.removesuffix("/").lower()
    if _HOST.fullmatch(name) is None or (separator and scheme not in _DEFAULT_PORTS):
        # The text is not repeated in full: it may hold a password ("https://user:password@host").
        raise InvalidInputError(f"not a registry address (host[:port], http:// or https://): {name.split('@')[-1]!r}")
    if not scheme:
        plain = _LOOPBACK.fullmatch(name) is not None if plain_http is None else plain_http
        scheme = "http" if plain else "https"
    elif plain_http is not None and plain_http != (scheme == "http"):
        raise InvalidInputError(f"registry {name}: the address says {scheme} but plain_http is {plain_http}")
    host = _DOCKER_HUB_HOST if name in _DOCKER_HUB_NAMES else name
    try:
        return RegistryAddress(name, httpx.URL(f"{scheme}://{host}"))
    except httpx.InvalidURL as error:
        raise InvalidInputError(f"not a registry address: {name!r}: {error}") from error


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Tell whether two URLs have the same scheme, host and port: only then may secrets go to both."""
    return _origin(one) == _origin(other)


def follow(base: httpx.URL, location: str, what: str) -> httpx.URL:
    """Return the absolute URL a server points to with ``Location``; relative ones are resolved.

    Raises:
        RemoteError: it is no HTTP URL, carries a user name, or leaves https for http.
    """
    target = _join(base, location, what)
    if target.userinfo or target.scheme not in _DEFAULT_PORTS or not target.host:
        raise RemoteError(f"{what}: {base.host} points to an address that is not followed")
    if base.scheme == "https" and target.scheme != "https":
        raise RemoteError(f"{what}: {base.host} points to {target.host} without TLS; refused")
    return target


def next_page(base: httpx.URL, link_header: str, what: str) -> httpx.URL | None:
    """Return the page named ``rel="next"`` in a ``Link`` header, or None.

    Raises:
        RemoteError: the next page is said to be on another host.
    """
    for count, link in enumerate(_LINK.finditer(link_header)):
        if count >= MAX_LINKS_PER_HEADER:
            break
        if _NEXT.search(link[2]):
            target = _join(base, link[1], what)
            if not same_origin(base, target):
                raise RemoteError(f"{what}: {base.host} says the next page is on {target.host}; not followed")
            return target
    return None


def parse_content_range(header: str) -> ContentRange | None:
    """Read ``bytes first-last/size`` (RFC 9110, 14.4); None if it is absent or malformed."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last, size = match.groups()
    return ContentRange(
        None if first is None else int(first),
        None if last is None else int(last),
        None if size == "*" else int(size),
    )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _DEFAULT_PORTS.get(url.scheme)


def _join(base: httpx.URL, location: str, what: str) -> httpx.URL:
    try:
        return base.join(location).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError) as error:
        raise RemoteError(f"{what}: {base.host} points to an address that cannot be read") from error
