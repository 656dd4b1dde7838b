"""Resolves the images' Debian packages anew, in the builder, and writes their locks into the checkout."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import dagger

from ci.builder import builder, with_sources
from ci.debian import debian_lock_text, lock_name
from ci.debian_index import make_lock, snapshot_time
from ci.errors import PipelineError
from ci.platforms import PLATFORMS_OF

if TYPE_CHECKING:
    from ci.context import Build
    from ci.platforms import Platform

_OUT: Final = "/out"
_FILES: Final = ("available", "releases")
_SIGNED: Final = "-----BEGIN PGP SIGNED MESSAGE-----"
_SHOWN: Final = 2000  # characters


async def lock(build: Build) -> tuple[Path, ...]:
    """Write all Debian locks and return their paths, sorted; none is written unless all could be resolved.

    Raises:
        PipelineError: apt could not be asked, or does not have what the images need.
    """
    now = str(time.time_ns())
    platforms = sorted({platform for each in PLATFORMS_OF.values() for platform in each})
    known = {platform: await _available(build, platform, now) for platform in platforms}
    texts = {
        build.source / "ci/locks" / lock_name(image, platform): debian_lock_text(
            make_lock(*known[platform], image, platform)
        )
        for image, built_for in PLATFORMS_OF.items()
        for platform in built_for
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return tuple(sorted(texts))


async def _available(build: Build, platform: Platform, now: str) -> tuple[str, str]:
    """Return what apt has for a platform, and when the archive was like that.

    Args:
        build: its sources.
        platform: the platform.
        now: anything that was not there before, or the engine would answer with what it once heard.
    """
    container, sources = with_sources(builder(build, "available"), build)
    argv = ["python3", "-m", "ci.inside.available", f"--architecture={platform.debian}", f"--into={_OUT}"]
    asked = container.with_env_variable("ASKED_AT", now).with_exec(
        [*argv, *([f"--sources={sources}"] if sources else [])]
    )
    with TemporaryDirectory() as folder:
        try:
            await asked.directory(_OUT).filter(include=list(_FILES)).export(folder)
        except dagger.ExecError as error:
            raise PipelineError(f"apt for {platform.debian}: {error.stderr.strip()[-_SHOWN:]}") from error
        return _read(Path(folder))


def _read(folder: Path) -> tuple[str, str]:
    available, releases = ((folder / name).read_text(encoding="utf-8") for name in _FILES)
    return available, snapshot_time(releases.split(_SIGNED))
