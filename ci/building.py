"""Builds an image for its platforms and runs each once; writes its OCI archive and reads from it what was built."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio
import dagger

from ci import images
from ci.errors import PipelineError
from ci.manifests import read_archive
from ci.platforms import parse_platforms
from ci.report import Row
from ci.smoke import smoke
from ci.toolbox import failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from ci.context import Build
    from ci.manifests import Archive
    from ci.platforms import Platform


_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Built:
    """An image, built for its platforms."""

    image: str
    archive: dagger.File
    """OCI archive of the index; its entry is called as the image is."""
    parts: Mapping[str, dagger.File]
    """Platform → OCI archive of its image alone, in the table's order."""
    smoke_seconds: Mapping[str, float]
    """Platform → how long its smoke run took; none for those not run."""


async def build_image(build: Build, image: str, names: Sequence[str], *, jobs: int, has_smoke: bool) -> Built:
    """Build an image for platforms beside each other and run each.

    Args:
        build: what is built.
        image: which.
        names: platforms; none of them: all that the image is for.
        jobs: how many at once; 0: one for each processor.
        has_smoke: whether they are run.

    Raises:
        PipelineError: one could not be built, or its smoke run failed.
    """
    platforms = parse_platforms(names, image)
    seconds: dict[str, float] = {}

    async def one(platform: Platform) -> None:
        what = f"{image} for {platform.name} was not built"
        try:
            container = await images.container(build, image, platform).sync()
        except dagger.ExecError as error:
            raise failed(what, error) from error
        except dagger.QueryError as error:
            raise PipelineError(f"{what}: {error}") from error
        if has_smoke:
            seconds[platform.name] = await smoke(build, image, platform, container)

    await for_each(one, platforms, jobs)
    parts = {platform.name: images.platform_archive(build, image, platform) for platform in platforms}
    return Built(image, images.archive(build, image, platforms), parts, seconds)


async def for_each(work: Callable[[_Item], Awaitable[None]], items: Iterable[_Item], jobs: int = 0) -> None:
    """Do the work for all items, so many at once; the first failure ends the others and is raised by itself."""
    limiter = anyio.CapacityLimiter(jobs or os.cpu_count() or 1)

    async def limited(item: _Item) -> None:
        async with limiter:
            await work(item)

    try:
        async with anyio.create_task_group() as group:
            for item in items:
                group.start_soon(limited, item)
    except BaseExceptionGroup as several:
        raise _first(several) from None


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def write_archive(built: Built, path: Path) -> Archive:
    """Write the OCI archive of an image, all platforms in one index, and return what it holds.

    Raises:
        PipelineError: what the engine wrote is no such archive.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    await built.archive.export(str(path))
    with path.open("rb") as file:
        return read_archive(file, str(path))


def rows(image: str, smoke_seconds: Mapping[str, float], archive: Archive) -> tuple[Row, ...]:
    """Return the closing table's rows of an image.

    Args:
        image: its name.
        smoke_seconds: platform → how long its smoke run took; none for those not run.
        archive: what was built.
    """
    return tuple(
        Row(image, each.platform, archive.sizes_bytes[each.platform], each.digest, smoke_seconds.get(each.platform))
        for each in archive.children
    )
