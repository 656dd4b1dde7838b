"""Reading requests: names, digests, ranges and pages out of paths, queries and headers. Pure; no registry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import check_tag
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

_CONTENT_RANGE: Final = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/.*)?")
_RANGE: Final = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*")

_DIGITS_MAX: Final = 9  # of a page size; more pages than that nobody has


def parse_digest(text: str) -> Digest:
    """Read a digest, refusing with DIGEST_INVALID."""
    try:
        return Digest.parse(text)
    except InvalidInputError as error:
        raise RefusedError(ErrorCode.DIGEST_INVALID, 400, str(error)) from error


def check_reference(text: str) -> str:
    """Return a manifest's reference if it is a tag or a digest, refusing with TAG_INVALID or DIGEST_INVALID."""
    if ":" in text:
        return str(parse_digest(text))
    try:
        return check_tag(text)
    except InvalidInputError as error:
        raise RefusedError(ErrorCode.TAG_INVALID, 400, str(error)) from error


def parse_content_range(header: str | None) -> tuple[int, int] | None:
    """Read a chunk's ``Content-Range`` as (first, last) byte; None if the chunk has none."""
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise RefusedError(ErrorCode.BLOB_UPLOAD_INVALID, 416, f"not a range of bytes: {header[:80]!r}")
    return int(match[1]), int(match[2])


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Read ``Range`` as (first byte, count); None means the whole blob (RFC 9110, 14.2: may be ignored).

    Several ranges at once are ignored; one that touches no byte is refused with 416.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        first, last = max(size - int(match[2]), 0), size - 1
    else:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if first > last:
        raise RefusedError(ErrorCode.RANGE_INVALID, 416, f"{header} touches none of {size} bytes")
    return first, last - first + 1


def is_known(request: Request, etag: str) -> bool:
    """Tell whether ``If-None-Match`` says that the client has this content."""
    known = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in known.split(","))


def page_of(names: Sequence[str], request: Request) -> tuple[list[str], dict[str, str]]:
    """Cut one page out of sorted names by ``n`` and ``last``; returns it with its ``Link`` header, if any."""
    last = request.query_params.get("last")
    rest = [name for name in names if last is None or name > last]
    wanted = request.query_params.get("n")
    if wanted is None:
        return rest, {}
    if not (wanted.isascii() and wanted.isdecimal() and len(wanted) <= _DIGITS_MAX):
        raise RefusedError(ErrorCode.PAGINATION_NUMBER_INVALID, 400, f"n is not a number: {wanted[:40]!r}")
    page = rest[: int(wanted)]
    if not page or len(page) == len(rest):
        return page, {}
    target = f"{quote(request.url.path)}?n={wanted}&last={quote(page[-1], safe='')}"
    return page, {"link": f'<{target}>; rel="next"'}
