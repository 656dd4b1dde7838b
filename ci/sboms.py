"""Software bills of materials: what is in each platform's image, found by syft, as SPDX JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import dagger

from ci.errors import PipelineError
from ci.toolbox import WORK, failed
from ci.tools import SYFT

if TYPE_CHECKING:
    from ci.toolbox import Toolbox

_ARCHIVE: Final = f"{WORK}/image.tar"
_SBOM: Final = f"{WORK}/sbom.spdx.json"


async def sbom(toolbox: Toolbox, image: dagger.File, name: str, version: str) -> dagger.File:
    """Return the SBOM of one platform's image.

    Args:
        toolbox: has syft.
        image: its OCI archive.
        name: the document's, such as `satellite-linux-arm64`: a file name without its end.
        version: of the image.

    Raises:
        PipelineError: syft failed, or found nothing.
    """
    argv = ["scan", f"oci-archive:{_ARCHIVE}", "--source-name", name, "--source-version", version]
    done = (
        toolbox.container(SYFT)
        .with_env_variable("SYFT_CHECK_FOR_APP_UPDATE", "false")
        .with_mounted_file(_ARCHIVE, image)
        .with_exec([*argv, "--output", f"spdx-json={_SBOM}"], use_entrypoint=True)
    )
    try:
        text = await done.file(_SBOM).contents()
    except dagger.ExecError as error:
        raise failed(f"the SBOM of {name} was not made: syft failed", error) from error
    if not package_count(text):
        raise PipelineError(f"the SBOM of {name} is empty: syft found no package")
    return toolbox.text_file(f"{name}.spdx.json", text)


def package_count(text: str) -> int:
    """Return how many packages an SPDX document names beside the image itself.

    Raises:
        PipelineError: it is none.
    """
    try:
        packages = json.loads(text)["packages"]
        return sum(package.get("primaryPackagePurpose") != "CONTAINER" for package in packages)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipelineError(f"syft wrote no SPDX document: {error!r}") from error
