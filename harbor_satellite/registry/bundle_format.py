"""What a bundle is made of: one uncompressed tar with an OCI image layout in it, cut into parts or not. Pure.

In the order of the tar: ``oci-layout``, the blobs (those of an artifact before its manifests), ``index.json``, then
``harbor-satellite/bundle.json`` with the sums of all parts up to itself, and ``harbor-satellite/end.json`` at a fixed
distance from the end, which says where that is and what it must hash to. So a bundle is written in one stream, and
read without trust in anything but its last block.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import BundleError, HarborSatelliteError, InvalidInputError
from harbor_satellite.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

LAYOUT_PATH: Final = "oci-layout"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_PATH: Final = "index.json"
CONTENTS_PATH: Final = "harbor-satellite/bundle.json"
END_PATH: Final = "harbor-satellite/end.json"
BLOCK_BYTES: Final = 512  # of a tar
END_BYTES: Final = 4 * BLOCK_BYTES  # header and data of the last member, two empty blocks
DOCUMENT_MAX_BYTES: Final = 64 * 1024 * 1024  # of index.json and bundle.json; some hundred thousand names
PARTS_MAX: Final = 1000  # three digits
PART_MIN_BYTES: Final = 64 * 1024
FORMAT: Final = "harbor-satellite-bundle-1"

REF_NAME: Final = "org.opencontainers.image.ref.name"
"""image-spec's annotation that names an entry of index.json; here ``REPOSITORY:TAG`` or ``REPOSITORY@DIGEST``."""
REFERRER_REPOSITORY: Final = "io.goharbor.satellite.repository"
REFERRER_SUBJECT: Final = "io.goharbor.satellite.subject"
"""With the repository: an entry of index.json is a referrer of this manifest."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What one part must be."""

    size: int
    """bytes"""
    digest: Digest


@dataclass(frozen=True, slots=True)
class BundleContents:
    """What ``bundle.json`` says."""

    segments: tuple[Segment, ...]
    """One of each part, up to where ``bundle.json`` begins."""
    media_types: Mapping[Digest, str] = field(default_factory=dict)
    """Of manifests that do not name their own."""


@dataclass(frozen=True, slots=True)
class BundleEnd:
    """What ``end.json`` says: where ``bundle.json`` begins with its tar header, and what it is."""

    offset: int
    size: int
    digest: Digest


def blob_path(digest: Digest) -> str:
    """Return where image-spec's layout keeps content."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def member_header(path: str, size: int) -> bytes:
    """Return a member's tar header; time, owner and mode stay constant: the same content, the same bytes."""
    entry = tarfile.TarInfo(path)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """Return what fills a member's last block."""
    return bytes(-size % BLOCK_BYTES)


def part_name(name: str, number: int) -> str:
    """Return the name of a part of a split bundle."""
    return f"{name}.{number:03}"


def contents_json(contents: BundleContents) -> bytes:
    """Write ``bundle.json``."""
    document = {
        "format": FORMAT,
        "segments": [{"bytes": segment.size, "digest": str(segment.digest)} for segment in contents.segments],
        "media_types": {str(digest): kind for digest, kind in sorted(contents.media_types.items())},
    }
    return json.dumps(document, indent=1).encode()


def parse_contents(raw: bytes, what: str) -> BundleContents:
    """Read ``bundle.json``.

    Raises:
        BundleError: it is not what it should be.
    """
    try:
        document = json.loads(raw)
        if document["format"] != FORMAT:
            raise BundleError(f"{what} has the format {str(document['format'])[:80]!r}; this program reads {FORMAT!r}")
        return BundleContents(
            tuple(Segment(_size(item["bytes"]), Digest.parse(item["digest"])) for item in document["segments"]),
            {Digest.parse(digest): str(kind) for digest, kind in document["media_types"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, InvalidInputError) as error:
        raise BundleError(f"{CONTENTS_PATH} of {what} is malformed: {error!r}") from error


def end_block(end: BundleEnd) -> bytes:
    """Write the last ``END_BYTES`` of a bundle."""
    document = {"format": FORMAT, "offset": end.offset, "bytes": end.size, "digest": str(end.digest)}
    data = json.dumps(document).encode().ljust(BLOCK_BYTES - 1) + b"\n"
    return member_header(END_PATH, BLOCK_BYTES) + data + bytes(2 * BLOCK_BYTES)


def parse_end(raw: bytes) -> BundleEnd | None:
    """Read the last ``END_BYTES`` of a bundle; None if they are no such end."""
    try:
        if len(raw) != END_BYTES or raw[:BLOCK_BYTES] != member_header(END_PATH, BLOCK_BYTES):
            return None
        document: Any = json.loads(raw[BLOCK_BYTES : 2 * BLOCK_BYTES])
        return BundleEnd(_size(document["offset"]), _size(document["bytes"]), Digest.parse(document["digest"]))
    except (KeyError, TypeError, ValueError, HarborSatelliteError):
        return None


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInputError(f"not a count of bytes: {str(value)[:80]!r}")
    return value
