"""What layers get before they are packed: byte-code that does not depend on the clock, and files with their modes."""

from __future__ import annotations

import compileall
import py_compile
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

PYTHON: Final = (3, 13)
"""The images' Python: byte-code of another one would be ignored there."""


def compile_folder(folder: Path, root: Path) -> None:
    """Compile each Python file below a folder, in the same way every time.

    The byte-code is never held against its source again ("unchecked-hash"): files of an image do not change, and
    small machines start several times faster. What is no Python, such as templates in packages, is reported and left.

    Args:
        folder: somewhere below `root`.
        root: what will be `/`.

    Raises:
        RuntimeError: this is not the images' Python.
    """
    if sys.version_info[:2] != PYTHON:
        raise RuntimeError(f"byte-code for Python {PYTHON[0]}.{PYTHON[1]} cannot be made by {sys.version.split()[0]}")
    compileall.compile_dir(
        folder,
        maxlevels=64,
        stripdir=str(root),
        prependdir="/",
        force=True,
        quiet=1,
        workers=1,  # in the files' order: the same strings are shared each time
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def add_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file and the folders above it, whatever the umask is."""
    for folder in reversed([each for each in path.parents if not each.exists()]):
        folder.mkdir()
        folder.chmod(0o755)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
