"""Opening a bundle: its end, the sums of its parts, the place of every blob, what its index.json names.

What lives here: finding things. What must not: the registry protocol (``bundle_registry``).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import BundleError, HarborSatelliteError, InvalidInputError
from harbor_satellite.oci.descriptor import Descriptor, parse_descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import check_repository, reference_kind
from harbor_satellite.registry.bundle_format import (
    BLOCK_BYTES,
    CONTENTS_PATH,
    DOCUMENT_MAX_BYTES,
    END_BYTES,
    INDEX_PATH,
    LAYOUT_PATH,
    REF_NAME,
    REFERRER_REPOSITORY,
    REFERRER_SUBJECT,
    BundleContents,
    member_header,
    padding,
    parse_contents,
    parse_end,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harbor_satellite.registry.bundle_parts import PartReader

_MEMBERS_MAX: Final = 1_000_000
_HEADER_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class BundleDirectory:
    """Where everything is in a bundle."""

    contents: BundleContents
    places: Mapping[Digest, tuple[int, int]]
    """Offset and size of each blob and manifest (bytes)."""
    names: Mapping[tuple[str, str], Descriptor]
    """By repository and tag or digest."""
    referrers: Mapping[tuple[str, Digest], tuple[Descriptor, ...]]
    """By repository and subject."""
    annotations: Mapping[str, str]
    """What index.json says about the whole."""


def read_directory(parts: PartReader) -> BundleDirectory:
    """Find everything in a bundle.

    Raises:
        BundleError: it is no bundle, a part is missing or was cut short, or it is damaged; the message names the part.
    """
    contents = _read_contents(parts)
    try:
        places, index_place = _find_members(parts)
        document = _read_index(parts, index_place)
        return BundleDirectory(
            contents, places, _names(document, parts.name), _referrers(document, parts.name), _annotations(document)
        )
    except BundleError:
        parts.check(contents.segments, lambda _: None)  # says which part is to blame, if one is
        raise


def _read_contents(parts: PartReader) -> BundleContents:
    if not parts.read(0, BLOCK_BYTES).startswith(LAYOUT_PATH.encode() + b"\0"):
        raise BundleError(f"{parts.paths[0]} is no bundle, or not the first part of one")
    end = parse_end(parts.read(max(parts.size - END_BYTES, 0), END_BYTES))
    if end is None:
        raise BundleError(
            f"{parts.paths[-1]} does not end as a bundle does: it was cut short, or the parts after it are missing"
        )
    if end.size > DOCUMENT_MAX_BYTES:
        raise BundleError(f"{CONTENTS_PATH} of {parts.name} has {end.size} bytes; at most {DOCUMENT_MAX_BYTES}")
    # Counted from the end: there it is also when a part before it is missing, and so can say so.
    tail = end.size + len(padding(end.size)) + END_BYTES
    raw = parts.read(max(parts.size - tail, 0), end.size)
    if Digest.of(raw) != end.digest:
        raise BundleError(f"{parts.paths[-1]} is damaged, or the part before it is")
    contents = parse_contents(raw, parts.name)
    if len(parts.paths) < len(contents.segments):
        raise BundleError(f"{parts.name} has {len(parts.paths)} parts instead of at least {len(contents.segments)}")
    for path, size, segment in zip(parts.paths, parts.sizes, contents.segments[:-1], strict=False):
        if size != segment.size:
            raise BundleError(f"{path} has {size} bytes instead of {segment.size}")
    expected = end.offset + len(member_header(CONTENTS_PATH, end.size)) + tail
    if expected != parts.size or end.offset != sum(segment.size for segment in contents.segments):
        raise BundleError(f"{parts.name} has {parts.size} bytes in all parts instead of {expected}")
    return contents


def _find_members(parts: PartReader) -> tuple[dict[Digest, tuple[int, int]], tuple[int, int]]:
    places: dict[Digest, tuple[int, int]] = {}
    index_place = (0, 0)
    try:
        with tarfile.open(fileobj=_Whole(parts), mode="r:") as archive:
            for count, member in enumerate(archive):
                archive.members = []  # type: ignore[attr-defined]  # else it keeps every one
                if count >= _MEMBERS_MAX:
                    raise BundleError(f"{parts.name} has more than {_MEMBERS_MAX} files")
                kind, _, rest = member.name.partition("/")
                if kind == "blobs" and member.isreg():
                    places[Digest.parse(rest.replace("/", ":", 1))] = (member.offset_data, member.size)
                elif member.name == INDEX_PATH:
                    index_place = (member.offset_data, member.size)
    except (tarfile.TarError, ValueError, InvalidInputError) as error:
        raise BundleError(f"the directory of {parts.name} is damaged: {error}") from error
    return places, index_place


def _read_index(parts: PartReader, place: tuple[int, int]) -> dict[str, Any]:
    if place[1] > DOCUMENT_MAX_BYTES:
        raise BundleError(f"{INDEX_PATH} of {parts.name} has {place[1]} bytes; at most {DOCUMENT_MAX_BYTES}")
    try:
        document = json.loads(parts.read(*place))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{INDEX_PATH} of {parts.name} is damaged: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("manifests"), list):
        raise BundleError(f"{INDEX_PATH} of {parts.name} is no image index")
    return document


class _Whole(io.RawIOBase):
    """All parts as the one file that ``tarfile`` walks."""

    def __init__(self, parts: PartReader) -> None:
        self._parts = parts
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._parts.size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        # tarfile reads headers only, and as much of them as they say: long names, and what else a stranger writes.
        if not 0 <= size <= _HEADER_MAX_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data = self._parts.read(self._position, size)
        self._position += len(data)
        return data


def _names(document: Mapping[str, Any], what: str) -> dict[tuple[str, str], Descriptor]:
    names: dict[tuple[str, str], Descriptor] = {}
    for descriptor in _descriptors(document, what):
        name = descriptor.annotations.get(REF_NAME)
        if name:
            repository, reference = _split(name, what)
            names[repository, reference] = descriptor
    return names


def _referrers(document: Mapping[str, Any], what: str) -> dict[tuple[str, Digest], tuple[Descriptor, ...]]:
    found: defaultdict[tuple[str, Digest], list[Descriptor]] = defaultdict(list)
    for descriptor in _descriptors(document, what):
        subject = descriptor.annotations.get(REFERRER_SUBJECT)
        if subject:
            try:
                found[descriptor.annotations.get(REFERRER_REPOSITORY, ""), Digest.parse(subject)].append(descriptor)
            except InvalidInputError as error:
                raise BundleError(f"{INDEX_PATH} of {what} is malformed: {error}") from error
    return {key: tuple(items) for key, items in found.items()}


def _descriptors(document: Mapping[str, Any], what: str) -> Iterator[Descriptor]:
    for item in document["manifests"]:
        try:
            yield parse_descriptor(item)
        except InvalidInputError as error:
            raise BundleError(f"{INDEX_PATH} of {what} is malformed: {error}") from error


def _split(name: str, what: str) -> tuple[str, str]:
    repository, at, digest = name.partition("@")
    reference = digest
    if not at:
        repository, _, reference = name.rpartition(":")
    try:
        reference_kind(reference)
        return check_repository(repository), reference
    except HarborSatelliteError as error:
        raise BundleError(f"{INDEX_PATH} of {what} names something odd: {name[:300]!r}") from error


def _annotations(document: Mapping[str, Any]) -> dict[str, str]:
    annotations = document.get("annotations") or {}
    if not isinstance(annotations, dict):
        return {}
    return {str(key): str(value) for key, value in annotations.items()}
