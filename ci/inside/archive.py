"""Put layers together to an image, and images of platforms to an index: OCI archives, the same bytes each time.

`python -m ci.inside.archive image --layers FOLDER --about FILE --into FILE`
`python -m ci.inside.archive index --images FOLDER --about FILE --into FILE`

Dagger's own export dates an image by when its layers came into the engine's cache, so no two engines agree on a digest.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
NAME: Final = "org.opencontainers.image.ref.name"

Descriptor = dict[str, Any]
Blobs = dict[str, "bytes | Path"]
"""Digest → content, or the file that has it."""


def image(layers: Sequence[Path], about: Mapping[str, Any]) -> tuple[Descriptor, Blobs]:
    """Return an image's descriptor and blobs.

    Args:
        layers: folders as `ci.inside.layer` makes them, the lowest first.
        about: `config`, an image config without layers; `annotations` of the manifest; `created`, a date.
    """
    blobs: Blobs = {}
    described = []
    for folder in layers:
        layer = json.loads((folder / "layer.json").read_text(encoding="utf-8"))
        blobs[layer["digest"]] = folder / layer["digest"].removeprefix("sha256:")
        described.append(layer)
    config = {
        **about["config"],
        "created": about["created"],
        "rootfs": {"type": "layers", "diff_ids": [each["diff_id"] for each in described]},
        "history": [{"created": about["created"], "created_by": each["created_by"]} for each in described],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add(blobs, CONFIG, config),
        "layers": [{key: each[key] for key in ("mediaType", "digest", "size")} for each in described],
        "annotations": about["annotations"],
    }
    platform = {key: config[key] for key in ("architecture", "os")}
    return {**add(blobs, MANIFEST, manifest), "platform": platform}, blobs


def index(images: Sequence[tuple[Descriptor, Blobs]], about: Mapping[str, Any]) -> tuple[Descriptor, Blobs]:
    """Return the descriptor and blobs of an index of images.

    Args:
        images: one for each platform.
        about: `annotations` of the index.
    """
    blobs: Blobs = {}
    for _, content in images:
        blobs |= content
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor for descriptor, _ in images],
        "annotations": about["annotations"],
    }
    return add(blobs, INDEX, document), blobs


def add(blobs: Blobs, media_type: str, document: Mapping[str, Any]) -> Descriptor:
    """Add a document to blobs and return its descriptor."""
    content = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blobs[digest] = content
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def write(file: Path, root: Descriptor, blobs: Blobs, name: str) -> None:
    """Write an OCI archive: a tar of an image layout with one entry."""
    layout: dict[str, bytes | Path] = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**root, "annotations": {NAME: name}}]}
        ).encode(),
    }
    layout |= {f"blobs/{digest.replace(':', '/')}": content for digest, content in sorted(blobs.items())}
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in ("blobs", "blobs/sha256"):  # some readers do not make the folders that they need
            folder = tarfile.TarInfo(path)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for path, content in layout.items():
            member = tarfile.TarInfo(path)
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
                member.size = source.seek(0, io.SEEK_END)
                source.seek(0)
                tar.addfile(member, source)


def read(file: Path, scratch: Path) -> tuple[Descriptor, Blobs]:
    """Return the one entry of an archive and its blobs, which are unpacked below a folder."""
    folder = scratch / file.name
    with tarfile.open(file) as tar:
        tar.extractall(folder, filter="data")
    document = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    (root,) = document["manifests"]
    blobs: Blobs = {f"sha256:{path.name}": path for path in (folder / "blobs/sha256").iterdir()}
    return {key: value for key, value in root.items() if key != "annotations"}, blobs


def main(argv: Sequence[str]) -> None:
    """Write an archive; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("image", "index"))
    parser.add_argument("--layers", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--about", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    options = parser.parse_args(argv)
    about = json.loads(options.about.read_text(encoding="utf-8"))
    if options.kind == "image":
        root, blobs = image(sorted(options.layers.iterdir()), about)
    else:
        scratch = options.into.parent / "scratch"
        root, blobs = index([read(file, scratch) for file in sorted(options.images.iterdir())], about)
    write(options.into, root, blobs, about["name"])


if __name__ == "__main__":
    main(sys.argv[1:])
