"""Publishes an image such that whoever pulls a wanted tag gets one that is signed.

The order: the index by its commit's tag; signatures and attestations on the digest that came back; all of them
verified, without the private key; only then, when this is done for all images, the wanted tags. What fails before
leaves no wanted tag behind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ci.building import for_each
from ci.debian import lock_name
from ci.errors import PipelineError, UsageError
from ci.locks import LOCK_OF
from ci.manifests import size_bytes
from ci.platforms import parse_platforms
from ci.provenance import predicate
from ci.report import Row
from ci.sboms import sbom
from ci.signing import Published, signing_steps, verification_steps
from ci.toolbox import WORK
from ci.tools import TOOLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import dagger

    from ci.building import Built
    from ci.context import Build
    from ci.credentials import Secret
    from ci.provenance import Origin
    from ci.references import Reference
    from ci.signing import Cosign
    from ci.toolbox import Toolbox

_PROVENANCE: Final = f"{WORK}/provenance.json"
_COMMIT_DIGITS: Final = 12


@dataclass(frozen=True)
class Signing:
    """How is signed and verified."""

    cosign: Cosign
    secrets: Mapping[str, Secret]
    """Variable → value; only for the steps that sign."""


@dataclass(frozen=True)
class Publication:
    """An image that is pushed, signed and verified, but for its tags."""

    published: Published
    rows: tuple[Row, ...]
    sboms: Mapping[str, dagger.File]
    """Platform → SBOM."""


def staging_tag(build: Build, *, is_changed: bool) -> str:
    """Return the tag under which an image is while it is not signed yet: it names the commit.

    Raises:
        UsageError: the source is no checkout, or not the commit's: what is published must be found again.
    """
    if not build.commit:
        raise UsageError(f"{build.source} is no git checkout: what is published must name its commit")
    if is_changed:
        raise UsageError(f"{build.source} differs from its commit {build.commit}: commit the changes, then publish")
    return f"sha-{build.commit[:_COMMIT_DIGITS]}"


async def image_sboms(
    toolbox: Toolbox, image: str, parts: Mapping[str, dagger.File], version: str
) -> Mapping[str, dagger.File]:
    """Return platform → SBOM of an image, made beside each other.

    Args:
        toolbox: has syft.
        image: its name.
        parts: platform → OCI archive of its image alone.
        version: of the image.

    Raises:
        PipelineError: syft failed, or found nothing.
    """
    found: dict[str, dagger.File] = {}

    async def one(platform: str) -> None:
        found[platform] = await sbom(toolbox, parts[platform], sbom_name(image, platform), version)

    await for_each(one, parts)
    return {platform: found[platform] for platform in parts}


def sbom_name(image: str, platform: str) -> str:
    """Return the name of an SBOM: `satellite-linux-arm64`."""
    return f"{image}-{platform.replace('/', '-')}"


def sbom_file(image: str, platform: str) -> str:
    """Return the file name of an SBOM: `satellite-linux-arm64.spdx.json`."""
    return f"{sbom_name(image, platform)}.spdx.json"


async def push_signed(
    toolbox: Toolbox,
    build: Build,
    built: Built,
    *,
    where: Reference,
    signing: Signing,
    origin: Origin,
    started: datetime,
    version_tag: str = "",
) -> Publication:
    """Push, sign, attest and verify an image; its tags are set by `set_tags`, when all is verified that has them.

    Args:
        toolbox: cosign, oras and syft, with the registry's login.
        build: what was built.
        built: its image.
        where: the repository, with the tag that it has until it is signed.
        signing: how.
        origin: who built.
        started: when the build began.
        version_tag: one that never moves: if it is there already, it has to be of the same index.

    Raises:
        PipelineError: a step failed.
    """
    sboms = await image_sboms(toolbox, built.image, built.parts, build.version)
    index = await toolbox.push(built.archive, built.image, where)
    await _check_version(toolbox, index, version_tag)
    paths = {platform: f"{WORK}/{sbom_file(built.image, platform)}" for platform in sboms}
    image = Published(index, await toolbox.platforms(index), paths, _PROVENANCE)
    _check_platforms(image, built)
    statement = await _provenance(toolbox, build, built, origin, started)
    files = {paths[platform]: file for platform, file in sboms.items()} | {_PROVENANCE: statement}
    await toolbox.run_cosign(signing.cosign, signing_steps(signing.cosign, image), secrets=signing.secrets, files=files)
    await toolbox.run_cosign(signing.cosign, verification_steps(signing.cosign, image))
    return Publication(image, await _rows(toolbox, built, image), sboms)


async def set_tags(toolbox: Toolbox, wanted: Sequence[tuple[Reference, Sequence[str]]]) -> None:
    """Give what is signed and verified its tags.

    Args:
        toolbox: oras, with the registry's login.
        wanted: reference by digest, and its tags; an image's, or the chart's.

    Raises:
        PipelineError: one could not be set; those before it are.
    """
    for reference, tags in wanted:
        for tag in tags:
            await toolbox.tag(reference, tag)


def _check_platforms(image: Published, built: Built) -> None:
    if set(image.platforms) != set(built.parts):
        raise PipelineError(f"{image.index} has {sorted(image.platforms)}, but built were {sorted(built.parts)}")


async def _check_version(toolbox: Toolbox, index: Reference, version_tag: str) -> None:
    """A version that somebody may have pulled already stays what it was."""
    if version_tag and version_tag in await toolbox.tags(index):
        there = await toolbox.resolve(index.tagged(version_tag))
        if there.digest != index.digest:
            raise PipelineError(
                f"{index.tagged(version_tag)} was published before, as {there.digest}: make a new version"
            )


async def _provenance(toolbox: Toolbox, build: Build, built: Built, origin: Origin, started: datetime) -> dagger.File:
    platforms = parse_platforms(list(built.parts), built.image)
    locks = [LOCK_OF[built.image], *(f"ci/locks/{lock_name(built.image, platform)}" for platform in platforms)]
    statement = predicate(
        origin,
        image=built.image,
        version=build.version,
        commit=build.commit,
        epoch=build.epoch,
        platforms=list(built.parts),
        files={path: (build.source / path).read_bytes() for path in locks},
        tools={name: await toolbox.tool_image(name) for name in TOOLS},
        started=started,
        finished=datetime.now(UTC),
    )
    return toolbox.text_file("provenance.json", json.dumps(statement))


async def _rows(toolbox: Toolbox, built: Built, image: Published) -> tuple[Row, ...]:
    rows = []
    for platform, reference in image.platforms.items():
        size = size_bytes(await toolbox.manifest(reference), str(reference))
        rows.append(Row(built.image, platform, size, reference.digest, built.smoke_seconds.get(platform)))
    return tuple(rows)
