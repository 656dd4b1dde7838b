"""Pulling states, with the registry client alone: what a site reads needs no more.

Every form is taken: the one that ``state_store`` pushes, the original's (an image whose single layer holds
``artifacts.json``), and an ORAS artifact whose layer is the bare JSON.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import MalformedStateError, SizeLimitError
from harbor_satellite.oci.descriptor import parse_manifest
from harbor_satellite.state.artifact import STATE_MAX_BYTES

if TYPE_CHECKING:
    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry

STATE_FILE: Final = "artifacts.json"
"""What the layer of a state holds."""
_LAYER_MAX_BYTES: Final = STATE_MAX_BYTES + 64 * 1024  # bytes; tar headers and padding on top of the JSON


@dataclass(frozen=True, slots=True)
class PulledState:
    """A state's JSON, with the digest of the manifest that vouches for it."""

    digest: Digest
    raw: bytes


def pull_state(registry: Registry, repository: str, reference: str) -> PulledState:
    """Pull a state in any of its forms; verified by digest from the manifest down.

    Args:
        registry: where to read.
        repository: the state's repository.
        reference: a tag or a digest.

    Raises:
        RemoteError: it is not there, or the registry refused.
        MalformedStateError: it holds no state.
        SizeLimitError: it is larger than a state may be.
        DigestMismatchError: the registry served other bytes than promised.
    """
    what = f"{registry.name}/{repository}@{reference}"
    content = registry.manifest_get(repository, reference)
    manifest = parse_manifest(content.raw, content.media_type, what)
    if len(manifest.layers) != 1:
        raise MalformedStateError(f"{what} is no state: {len(manifest.layers)} layers instead of one")
    layer = manifest.layers[0]
    blob = _read_blob(registry, repository, layer, what)
    raw = blob if layer.media_type.endswith("json") else _extract(blob, what)
    return PulledState(content.digest, raw)


def _read_blob(registry: Registry, repository: str, layer: Descriptor, what: str) -> bytes:
    if layer.size > _LAYER_MAX_BYTES:
        raise SizeLimitError(f"state {what} has a layer of {layer.size} bytes; at most {_LAYER_MAX_BYTES} are read")
    received = bytearray()
    with registry.blob_get(repository, layer.digest) as chunks:
        for chunk in chunks:
            received += chunk
            if len(received) > layer.size:
                raise SizeLimitError(f"state {what} sends more than the {layer.size} bytes its manifest names")
    layer.digest.verify(bytes(received), f"{what}, layer")
    return bytes(received)


def _extract(blob: bytes, what: str) -> bytes:
    try:
        archive = blob
        if blob.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(blob)) as packed:
                archive = packed.read(_LAYER_MAX_BYTES + 1)
        if len(archive) > _LAYER_MAX_BYTES:
            raise SizeLimitError(f"state {what} unpacks to more than {_LAYER_MAX_BYTES} bytes")
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as files:
            member = next((item for item in files if item.name.lstrip("./") == STATE_FILE and item.isfile()), None)
            opened = files.extractfile(member) if member else None
            if opened is None:
                raise MalformedStateError(f"{what} is no state: no {STATE_FILE} in its layer")
            return opened.read(STATE_MAX_BYTES + 1)
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise MalformedStateError(f"{what} is no state: its layer does not unpack: {error}") from error
