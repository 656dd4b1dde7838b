"""Install wheels for another platform into a layer, without running anything of theirs.

`python -m ci.inside.install --into LAYER (--requirements FILE --tags FILE | --wheel FOLDER)
[--script NAME=MODULE:FUNCTION]…`; pip finds its index as always (PIP_CONFIG_FILE, PIP_CERT).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ci.inside.tree import add_file, compile_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES: Final = "usr/local/lib/python3.13/dist-packages"
"""Where Debian's Python looks first for what did not come from Debian."""

_SCRIPT: Final = """\
#!/usr/bin/python3.13
import sys

from {module} import {function}

sys.exit({function}())
"""


def pip_arguments(into: Path, tags: Sequence[str], what: Sequence[str]) -> list[str]:
    """Return the command line that installs for a platform with exactly these wheel tags, and resolves nothing.

    Args:
        into: an empty folder.
        tags: platform tags, the best first; none: wheels for any platform only.
        what: the requirements or the file.
    """
    return [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
        "--root-user-action=ignore", "--no-deps", "--only-binary=:all:", "--no-compile",
        "--target", str(into), "--python-version=3.13", "--implementation=cp", "--abi=cp313", "--abi=abi3",
        "--abi=none", *(f"--platform={tag}" for tag in (*tags, "any")),
        *what,
    ]  # fmt: skip


def clean(packages: Path) -> None:
    """Take away what pip says about the machine that built: programs for its Python, and the file it installed from."""
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for path in packages.glob("*.dist-info/direct_url.json"):
        path.unlink()
    for record in packages.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("../../bin/") and "/direct_url.json," not in line]
        record.write_text("".join(sorted(kept)), encoding="utf-8")


def script(entry: str) -> tuple[str, str]:
    """Return the name and the text of a program.

    Args:
        entry: `NAME=MODULE:FUNCTION`.
    """
    name, _, place = entry.partition("=")
    module, _, function = place.partition(":")
    return name, _SCRIPT.format(module=module, function=function)


def main(argv: Sequence[str]) -> None:
    """Install; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--requirements", type=Path)
    parser.add_argument("--tags", type=Path)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--script", action="append", default=[])
    options = parser.parse_args(argv)
    packages = options.into / PACKAGES
    packages.mkdir(parents=True)
    tags = options.tags.read_text(encoding="utf-8").split() if options.tags else []
    if options.wheel:
        what = ["--no-index", *map(str, options.wheel.glob("*.whl"))]
    else:
        what = ["--require-hashes", "--requirement", str(options.requirements)]
    subprocess.run(pip_arguments(packages, tags, what), check=True)  # noqa: S603 - ours
    clean(packages)
    for name, text in map(script, options.script):
        add_file(options.into / "usr/local/bin" / name, text, mode=0o755)
    compile_folder(packages, options.into)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as failed:
        sys.exit(f"install: pip ended with {failed.returncode}")
