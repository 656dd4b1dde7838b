"""Make a root file system of Debian packages, running nothing of theirs; what their scripts would do is done here.

`python -m ci.inside.unpack --packages FOLDER --into ROOT`; root, and Debian's `dpkg-deb`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ci.inside.tree import add_file, compile_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

USER: Final = "harbor-satellite"
USER_ID: Final = 65532
"""Of the user and of its group; what other images without a shell call `nonroot`."""
HOME: Final = f"var/lib/{USER}"

# Nothing of it is read by a program of ours; copyright files stay.
_LEFT_OUT: Final = (
    "boot", "home", "media", "mnt", "opt", "srv", "usr/games", "usr/include", "usr/src",
    "etc/default", "etc/issue", "etc/issue.net", "etc/profile.d", "etc/skel", "etc/update-motd.d", "etc/ld.so.conf.d",
    "usr/lib/*/gconv", "usr/lib/python3.13/test", "usr/sbin/*", "usr/share/applications", "usr/share/base-files",
    "usr/share/bug",
    "usr/share/doc-base", "usr/share/gcc", "usr/share/gdb", "usr/share/info", "usr/share/lintian",
    "usr/share/locale", "usr/share/man", "usr/share/pixmaps",
    "var/backups", "var/local", "var/lock", "var/mail", "var/opt", "var/spool",
)  # fmt: skip

_PASSWD: Final = f"""\
root:x:0:0:root:/root:/usr/sbin/nologin
{USER}:x:{USER_ID}:{USER_ID}:Harbor Satellite:/{HOME}:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP: Final = f"root:x:0:\ntty:x:5:\n{USER}:x:{USER_ID}:\nnogroup:x:65534:\n"
_NSSWITCH: Final = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"


def unpack(packages: Sequence[Path], root: Path) -> None:
    """Unpack packages over each other, and write down for scanners which they were.

    Raises:
        subprocess.CalledProcessError: a file is no package.
    """
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    # base-files makes `/lib` a link to `/usr/lib`, and so on: it must be there before what lies behind them.
    for package in sorted(packages, key=lambda each: (not each.name.startswith("base-files_"), each.name)):
        _dpkg("--extract", str(package), str(root))
        add_file(root / "var/lib/dpkg/status.d" / package.name.partition("_")[0], _dpkg("--field", str(package)))


def drop_left_out(root: Path) -> None:
    """Remove what nobody reads inside an image without a shell."""
    for pattern in _LEFT_OUT:
        for path in sorted(root.glob(pattern)):
            _remove(path)
    for path in sorted((root / "usr/share/doc").rglob("*")):
        if not path.is_symlink() and path.is_file() and path.name != "copyright":
            _remove(path)
    for folder, _, _ in os.walk(root / "usr/share/doc", topdown=False):
        if not any(Path(folder).iterdir()):
            Path(folder).rmdir()


def finish(root: Path) -> None:
    """Do what the packages' scripts would have done, as far as an image needs it."""
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    if not certificates:
        raise RuntimeError("no package brought certificates of authorities")
    add_file(
        root / "etc/ssl/certs/ca-certificates.crt",
        "".join(each.read_text(encoding="ascii").rstrip("\n") + "\n" for each in certificates),
    )
    shutil.rmtree(root / "usr/share/ca-certificates")
    (root / "usr/lib/ssl").mkdir(mode=0o755, exist_ok=True)
    _link(root / "usr/lib/ssl/certs", "/etc/ssl/certs")
    _link(root / "usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt")
    _link(root / "usr/bin/python3", "python3.13")
    for path, text in (("passwd", _PASSWD), ("group", _GROUP), ("nsswitch.conf", _NSSWITCH)):
        add_file(root / "etc" / path, text)
    for folder, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("run", 0o755), (HOME, 0o700)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).chmod(mode)
    os.chown(root / HOME, USER_ID, USER_ID)
    _link(root / "var/run", "/run")
    for each in root.rglob("*"):
        if each.is_file() and not each.is_symlink() and each.stat().st_mode & 0o6000:
            each.chmod(each.stat().st_mode & 0o777)  # nobody becomes somebody else in there


def _dpkg(*arguments: str) -> str:
    """Return what Debian's unpacker says."""
    return subprocess.run(["dpkg-deb", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603, S607


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _link(path: Path, target: str) -> None:
    """Make a link where there is none; an empty folder gives way to it."""
    if path.is_symlink():
        return
    if path.is_dir():
        path.rmdir()
    path.symlink_to(target)


def main(argv: Sequence[str]) -> None:
    """Unpack; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    options = parser.parse_args(argv)
    unpack(sorted(options.packages.glob("*.deb")), options.into)
    drop_left_out(options.into)
    finish(options.into)
    for folder in ("usr/lib/python3", "usr/lib/python3.13"):
        if (options.into / folder).is_dir():
            compile_folder(options.into / folder, options.into)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (RuntimeError, subprocess.CalledProcessError) as problem:
        sys.exit(f"unpack: {problem}")
