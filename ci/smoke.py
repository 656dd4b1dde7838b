"""Runs an image once on its platform, emulated where the engine's is another, on a branch that is never published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import dagger
from dagger import dag

from ci.errors import PipelineError

if TYPE_CHECKING:
    from ci.context import Build
    from ci.platforms import Platform

_SCRIPT: Final = "ci/inside/smoke.py"
_MOUNTED: Final = "/smoke/smoke.py"
_SHOWN: Final = 4000  # characters


async def smoke(build: Build, image: str, platform: Platform, container: dagger.Container) -> float:
    """Return how many seconds the image took to prove itself; what that is, is told in `ci/inside/smoke.py`.

    Args:
        build: the source has the script.
        image: SATELLITE or GROUND_CONTROL.
        platform: the container's.
        container: the image as it will be published; it stays as it is.

    Raises:
        PipelineError: it did not.
    """
    script = dag.host().directory(str(build.source), include=[_SCRIPT]).file(_SCRIPT)
    branch = container.with_mounted_file(_MOUNTED, script).with_mounted_temp("/tmp")  # noqa: S108 - the container's
    if platform.qemu_cpu:
        branch = branch.with_env_variable("QEMU_CPU", platform.qemu_cpu)
    try:
        said = await branch.with_exec(["python3", _MOUNTED, image, build.version]).stdout()
    except dagger.ExecError as error:
        raise PipelineError(f"{image} on {platform.name}: {error.stderr.strip()[-_SHOWN:]}") from error
    return float(said.split()[-1])
