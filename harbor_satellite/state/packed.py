"""Bodies that sites and the centre send each other packed by gzip: when that pays, and unpacking within bounds.

What must not live here: who says that it takes packed ones.
"""

from __future__ import annotations

import gzip
import re
import zlib
from typing import Final

from harbor_satellite.errors import SizeLimitError, UntrustedDataError

GZIP: Final = "gzip"
"""As ``Content-Encoding`` and ``Accept-Encoding`` name it."""
_PAYS_FROM_BYTES: Final = 512
"""Below, what the header of a packed body adds is about what packing saves."""
_LEVEL: Final = 6
_REFUSED: Final = re.compile(r"q=0(?:\.0*)?")
_GZIP_WINDOW: Final = 31  # zlib's number for: gzip, and nothing else


def pays(body: bytes) -> bool:
    """Tell whether a body is large enough to be packed."""
    return len(body) > _PAYS_FROM_BYTES


def pack(body: bytes) -> bytes:
    """Return a body packed; the same bytes for the same body."""
    return gzip.compress(body, _LEVEL, mtime=0)


def unpack(packed: bytes, most: int) -> bytes:
    """Return what is in a packed body.

    Args:
        packed: as it came; a small one may hold any number of bytes.
        most: bytes that it may hold; no more are ever unpacked.

    Raises:
        UntrustedDataError: it is no gzip, ends too soon, or does not end where it should.
        SizeLimitError: it holds more.
    """
    unpacking = zlib.decompressobj(wbits=_GZIP_WINDOW)
    try:
        body = unpacking.decompress(packed, most + 1)
    except zlib.error:
        raise UntrustedDataError("the body is no gzip") from None
    if len(body) > most:
        raise SizeLimitError(f"the body is larger than {most} bytes")
    if not unpacking.eof:
        raise UntrustedDataError("the body ends too soon")
    if unpacking.unused_data:
        raise UntrustedDataError("the body goes on after its end")
    return body


def takes_packed(accept_encoding: str) -> bool:
    """Tell whether an ``Accept-Encoding``, of a request or of an answer, names gzip (RFC 9110, 12.5.3)."""
    for one in accept_encoding.lower().split(","):
        coding, _, weight = one.partition(";")
        if coding.strip() == GZIP:
            return not _REFUSED.fullmatch(weight.replace(" ", ""))
    return False
