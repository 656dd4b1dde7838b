"""Ask apt what can be had for an architecture, without touching what the container itself has.

`python -m ci.inside.available --architecture ARCHITECTURE --into FOLDER [--sources FILE]`; the folder then has
`available`, what `apt-cache dumpavail` prints, and `releases`, the suites' signed InRelease files one after the other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def configuration(state: Path, architecture: str, sources: Path | None, authorities: str = "") -> str:
    """Return an apt configuration of its own: another architecture, nothing installed, the same trusted keys.

    Args:
        state: an empty folder for its lists.
        architecture: Debian's name.
        sources: a user's; None: the container's.
        authorities: path of a CA bundle; empty: the container's.
    """
    lines = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "Acquire::Languages": "none",
        "Dir::State": str(state),
        "Dir::State::status": str(state / "status"),
        "Dir::Cache": str(state / "cache"),
    }
    if sources:
        lines |= {"Dir::Etc::sourcelist": str(sources), "Dir::Etc::sourceparts": "/dev/null"}
    if authorities:
        lines["Acquire::https::CAInfo"] = authorities
    return "".join(f'{key} "{value}";\n' for key, value in lines.items())


def ask(state: Path, into: Path) -> None:
    """Update the lists in a folder and write what they say.

    Raises:
        subprocess.CalledProcessError: apt failed; it has said why.
    """
    os.environ["APT_CONFIG"] = str(state / "apt.conf")
    subprocess.run(["apt-get", "update", "--error-on=any"], check=True)  # noqa: S607
    with (into / "available").open("wb") as file:
        subprocess.run(["apt-cache", "dumpavail"], check=True, stdout=file)  # noqa: S607
    releases = sorted((state / "lists").glob("*_InRelease"))
    (into / "releases").write_text("\n".join(each.read_text(encoding="utf-8") for each in releases), encoding="utf-8")


def main(argv: Sequence[str]) -> None:
    """Ask; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--architecture", required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--sources", type=Path)
    options = parser.parse_args(argv)
    state = options.into / "state"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    text = configuration(state, options.architecture, options.sources, os.environ.get("SSL_CERT_FILE", ""))
    (state / "apt.conf").write_text(text, encoding="utf-8")
    ask(state, options.into)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as failed:
        sys.exit(f"available: {failed.cmd[0]} ended with {failed.returncode}")
