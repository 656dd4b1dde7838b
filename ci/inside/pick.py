"""Take one program out of another image's files into a layer.

`python -m ci.inside.pick --from IMAGE --into LAYER --as usr/local/bin/NAME --machine E_MACHINE PATTERN…`
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ci.inside.tree import add_file

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAGIC: Final = b"\x7fELF"
_BIG_ENDIAN: Final = b"\x02"
_HEADER_BYTES: Final = 20  # as far as e_machine


def find(image: Path, patterns: Sequence[str]) -> Path:
    """Return the one file that a pattern fits; projects have moved their program between releases.

    Raises:
        RuntimeError: none, or more than one.
    """
    found = sorted({path for pattern in patterns for path in image.glob(pattern) if path.is_file()})
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} files fit {', '.join(patterns)} in the image; there has to be one")
    return found[0]


def check_machine(program: Path, machine: int) -> None:
    """Check that a program is for a machine: an image that has one platform only is given for any that is asked for.

    Args:
        program: an ELF file.
        machine: the number that its header has to have as `e_machine` (elf.h).

    Raises:
        RuntimeError: it is for another, or no ELF file.
    """
    with program.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    order: Literal["big", "little"] = "big" if header[5:6] == _BIG_ENDIAN else "little"
    found = int.from_bytes(header[18:20], order)
    if not header.startswith(_MAGIC) or found != machine:
        raise RuntimeError(f"{program.name} is for machine {found} (ELF e_machine), not {machine}: no image for it?")


def main(argv: Sequence[str]) -> None:
    """Pick; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="image", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--as", dest="path", required=True)
    parser.add_argument("--machine", type=int, required=True)
    parser.add_argument("patterns", nargs="+")
    options = parser.parse_args(argv)
    program = options.into / options.path
    found = find(options.image, options.patterns)
    check_machine(found, options.machine)
    add_file(program, "", mode=0o755)
    shutil.copyfile(found, program)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RuntimeError as problem:
        sys.exit(f"pick: {problem}")
