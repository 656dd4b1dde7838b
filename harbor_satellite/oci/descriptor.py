"""Descriptors and manifests: reading untrusted JSON into frozen values.

Raw bytes are kept by the caller and never made anew from these values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError, MalformedStateError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MANIFEST_MAX_BYTES: Final = 4 * 1024 * 1024  # bytes; distribution-spec asks registries for at least this


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What content is, how it is named and how large it is (image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    """bytes"""
    platform: Platform | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest or an image index, as far as copying it needs to know."""

    media_type: str
    artifact_type: str = ""
    config: Descriptor | None = None
    """Only in image manifests."""
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    """Children; only in image indexes."""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_index(self) -> bool:
        """Whether this names other manifests instead of blobs."""
        return self.media_type in media_types.INDEXES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers, each digest once, in the order they appear."""
        found = (*((self.config,) if self.config else ()), *self.layers)
        return tuple({blob.digest: blob for blob in found}.values())

    @property
    def referrer_type(self) -> str:
        """The artifact type under which a referrer is listed (distribution-spec, "Listing Referrers")."""
        return self.artifact_type or (self.config.media_type if self.config else "")


def parse_manifest(raw: bytes, content_type: str, what: str) -> Manifest:
    """Read a manifest of any kind that this project copies.

    Args:
        raw: the exact bytes as the registry sent them; at most ``MANIFEST_MAX_BYTES``.
        content_type: the ``Content-Type`` they came with; empty if there was none.
        what: the name to use in messages.

    Raises:
        MalformedStateError: not JSON, contradicts its ``Content-Type``, or is of an unknown kind.
    """
    document = _json_object(raw, what)
    media_type = _media_type(document, content_type.partition(";")[0].strip(), what)
    try:
        return Manifest(
            media_type=media_type,
            artifact_type=_text(document, "artifactType"),
            config=_optional(document.get("config")),
            layers=_list(document.get("layers")),
            manifests=_list(document.get("manifests")),
            subject=_optional(document.get("subject")),
            annotations=_annotations(document.get("annotations")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, InvalidInputError) as error:
        raise MalformedStateError(f"malformed manifest {what}: {error!r}") from error


def parse_descriptor(document: Any) -> Descriptor:
    """Read one descriptor out of parsed JSON.

    Raises:
        InvalidInputError: a part is missing or of the wrong kind.
    """
    try:
        size = document["size"]
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InvalidInputError(f"descriptor size is not a count of bytes: {size!r}")
        return Descriptor(
            media_type=_text(document, "mediaType"),
            digest=Digest.parse(document["digest"]),
            size=size,
            platform=_platform(document.get("platform")),
            artifact_type=_text(document, "artifactType"),
            annotations=_annotations(document.get("annotations")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"malformed descriptor: {error!r}") from error


def descriptor_json(descriptor: Descriptor) -> dict[str, object]:
    """Write a descriptor as image-spec's JSON object; empty parts are left out."""
    document: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.platform:
        platform = descriptor.platform
        document["platform"] = {"os": platform.os, "architecture": platform.architecture} | (
            {"variant": platform.variant} if platform.variant else {}
        )
    if descriptor.artifact_type:
        document["artifactType"] = descriptor.artifact_type
    if descriptor.annotations:
        document["annotations"] = dict(descriptor.annotations)
    return document


def index_bytes(descriptors: Iterable[Descriptor]) -> bytes:
    """Write an OCI image index of descriptors: a referrers answer, a fallback tag."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [descriptor_json(descriptor) for descriptor in descriptors],
        },
        separators=(",", ":"),
    ).encode()


def _json_object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedStateError(f"manifest {what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MalformedStateError(f"manifest {what} is not a JSON object")
    return document


def _media_type(document: dict[str, Any], content_type: str, what: str) -> str:
    inside = document.get("mediaType") or ""
    if not isinstance(inside, str):
        raise MalformedStateError(f"manifest {what} has a mediaType that is no text: {str(inside)[:120]!r}")
    # distribution-spec, "Pushing Manifests": Content-Type must equal mediaType where both are there.
    if inside and content_type in media_types.MANIFESTS and inside != content_type:
        raise MalformedStateError(f"manifest {what} says {inside!r} but was sent as {content_type!r}")
    media_type = inside or content_type
    if media_type not in media_types.MANIFESTS:
        raise MalformedStateError(f"manifest {what} is of a kind that is not copied: {str(media_type)[:120]!r}")
    return str(media_type)


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key) or ""
    if not isinstance(value, str):
        raise InvalidInputError(f"{key} is not text: {value!r}")
    return value


def _optional(document: Any) -> Descriptor | None:
    return None if document is None else parse_descriptor(document)


def _list(documents: Any) -> tuple[Descriptor, ...]:
    return tuple(parse_descriptor(document) for document in documents or ())


def _annotations(document: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (document or {}).items()}


def _platform(document: Any) -> Platform | None:
    if not document or not document.get("os") or not document.get("architecture"):
        return None
    return Platform(str(document["os"]), str(document["architecture"]), str(document.get("variant") or ""))
