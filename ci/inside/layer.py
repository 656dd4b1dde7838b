"""Pack a folder as a layer: the same bytes for the same files, whoever packs them and when.

`python -m ci.inside.layer --from FOLDER --into BLOB --epoch SECONDS --by TEXT`; BLOB is a folder that then has the
layer, named by its digest, and `layer.json`, which describes it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MEDIA_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
DESCRIPTION: Final = "layer.json"
_LEVEL: Final = 6  # a higher one takes three times as long and saves one per cent


class _Hashed:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def pack(folder: Path, into: Path, epoch: int, by: str) -> None:
    """Pack what is in a folder; see the module.

    Args:
        folder: what will be `/`; owners and modes stay as they are.
        into: a folder; made if missing.
        epoch: seconds, the date of everything in the layer.
        by: what the image's history says about the layer.
    """
    into.mkdir(parents=True, exist_ok=True)
    part = into / "part"
    with part.open("wb") as file:
        packed = _Hashed(file)
        with gzip.GzipFile(
            filename="", fileobj=cast("BinaryIO", packed), mode="wb", compresslevel=_LEVEL, mtime=0
        ) as zipped:
            plain = _Hashed(cast("BinaryIO", zipped))
            with tarfile.open(fileobj=cast("BinaryIO", plain), mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for path in _walk(folder):
                    _add(tar, folder, path, epoch)
    part.rename(into / packed.sha256.hexdigest())
    described = {
        "mediaType": MEDIA_TYPE,
        "digest": f"sha256:{packed.sha256.hexdigest()}",
        "size": packed.size,
        "diff_id": f"sha256:{plain.sha256.hexdigest()}",
        "created_by": by,
    }
    (into / DESCRIPTION).write_text(json.dumps(described), encoding="utf-8")


def _walk(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder, sorted, folders before what is in them."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _add(tar: tarfile.TarFile, folder: Path, path: Path, epoch: int) -> None:
    member = tar.gettarinfo(path, str(path.relative_to(folder)))  # a second name of a file becomes a hard link
    member.mtime, member.uname, member.gname = epoch, "", ""
    if member.isreg():
        with path.open("rb") as file:
            tar.addfile(member, file)
    else:
        tar.addfile(member)


def main(argv: Sequence[str]) -> None:
    """Pack; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="folder", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--by", required=True)
    options = parser.parse_args(argv)
    pack(options.folder, options.into, options.epoch, options.by)


if __name__ == "__main__":
    main(sys.argv[1:])
