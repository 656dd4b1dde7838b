"""Take one program out of another image's files into a layer.

`python -m ci.inside.pick --from IMAGE --into LAYER --as usr/local/bin/NAME PATTERN…`
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ci.inside.tree import add_file

if TYPE_CHECKING:
    from collections.abc import Sequence


def find(image: Path, patterns: Sequence[str]) -> Path:
    """Return the one file that a pattern fits; projects have moved their program between releases.

    Raises:
        RuntimeError: none, or more than one.
    """
    found = sorted({path for pattern in patterns for path in image.glob(pattern) if path.is_file()})
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} files fit {', '.join(patterns)} in the image; there has to be one")
    return found[0]


def main(argv: Sequence[str]) -> None:
    """Pick; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="image", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--as", dest="path", required=True)
    parser.add_argument("patterns", nargs="+")
    options = parser.parse_args(argv)
    program = options.into / options.path
    found = find(options.image, options.patterns)
    add_file(program, "", mode=0o755)
    shutil.copyfile(found, program)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RuntimeError as problem:
        sys.exit(f"pick: {problem}")
