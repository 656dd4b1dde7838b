"""What each verb does, from what the user asked to what is printed. The engine is connected already."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import dagger
from dagger import dag

from ci.building import Built, build_image, rows, write_archive
from ci.checks import CHECK, TEST, run_make
from ci.errors import PipelineError, UsageError
from ci.lock_debian import lock
from ci.publication import image_sboms, push_signed, sbom_file, set_tags
from ci.references import image_reference
from ci.report import table
from ci.signing import Published, attestation_steps, signing_steps, verification_steps
from ci.toolbox import WORK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ci.publication import Publication, Signing
    from ci.references import Reference
    from ci.report import Row
    from ci.run import Run


async def test_verb(run: Run) -> None:
    """Run the tests; print their summary."""
    say(await run_make(run.build, TEST, run.options.arguments))


async def check_verb(run: Run) -> None:
    """Check format, lint, types and layers."""
    say(await run_make(run.build, CHECK))


async def lock_verb(run: Run) -> None:
    """Resolve the images' Debian packages anew; print the files written."""
    for path in await lock(run.build):
        say(f"written: {path}")


async def build_verb(run: Run) -> None:
    """Build the images and run each; print the table."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = run.options.output or Path(temporary)
        for image in run.options.images:
            built = await built_image(run, image)
            content = await write_archive(built, folder / f"{image}.oci.tar")
            found += rows(image, built.smoke_seconds, content)
    say(table(found))


async def publish_verb(run: Run) -> None:
    """Publish, sign, attest and verify the images, then set their tags; print the table."""
    # All are built before the first is pushed.
    published = await publish_built(run, [await built_image(run, image) for image in run.options.images])
    say(table([row for each in published for row in each.rows]))
    for each in published:
        say_published(each, run.options.tags)


async def publish_built(run: Run, built: Sequence[Built]) -> Sequence[Publication]:
    """Push, sign, attest and verify all the images; when that is done, set the tags of all.

    Raises:
        PipelineError: a step failed; the wanted tags are as before, unless it was setting them.
    """
    signing = run.signing()
    published = [await push_image(run, each, signing) for each in built]
    await set_tags(run.toolbox, [(each.published.index, run.options.tags) for each in published])
    return published


async def sign_verb(run: Run) -> None:
    """Sign images that are there, by digest, and verify."""
    signing = run.signing()
    for reference in run.options.references:
        image = await existing_image(run, reference)
        await run.toolbox.run_cosign(signing.cosign, signing_steps(signing.cosign, image), secrets=signing.secrets)
        await run.toolbox.run_cosign(signing.cosign, verification_steps(signing.cosign, image))
        say(f"signed and verified: {image.index}")


async def verify_verb(run: Run) -> None:
    """Verify the signatures of images that are there, and their attestations if asked for."""
    cosign = run.signing(signs=False).cosign
    for reference in run.options.references:
        image = await existing_image(run, reference)
        if run.options.attest:
            image = replace(image, sboms=dict.fromkeys(image.platforms, ""), provenance="wanted")
        await run.toolbox.run_cosign(cosign, verification_steps(cosign, image))
        what = "signatures, SBOMs and provenance" if run.options.attest else "signatures"
        say(f"verified, {what} of the index and {len(image.platforms)} platforms: {image.index}")


async def sbom_verb(run: Run) -> None:
    """Write the SBOMs of images that are there; attest them if asked for."""
    folder = run.options.output or Path()
    folder.mkdir(parents=True, exist_ok=True)
    for reference in run.options.references:
        image = await existing_image(run, reference)
        if not image.platforms:
            raise PipelineError(f"{image.index} is no image")
        name = reference.repository.rpartition("/")[2]
        parts = {
            platform: run.toolbox.with_login(dag.container(platform=dagger.Platform(platform)), reference.registry)
            .from_(str(image.index))
            .as_tarball()
            for platform in image.platforms
        }
        sboms = await image_sboms(run.toolbox, name, parts, reference.tag or image.index.digest)
        for platform, file in sboms.items():
            path = folder / sbom_file(name, platform)
            await file.export(str(path))
            say(f"written: {path}")
        if run.options.attest:
            await attest(run, image, sboms)


async def attest(run: Run, image: Published, sboms: Mapping[str, dagger.File]) -> None:
    """Attest SBOMs to an image that is signed already: it says what is in it, not who made it."""
    signing = run.signing()
    await run.toolbox.run_cosign(signing.cosign, verification_steps(signing.cosign, image))
    image = replace(image, sboms={platform: f"{WORK}/{sbom_file('image', platform)}" for platform in sboms})
    steps = attestation_steps(signing.cosign, image)
    files = {image.sboms[platform]: file for platform, file in sboms.items()}
    await run.toolbox.run_cosign(signing.cosign, steps, secrets=signing.secrets, files=files)
    await run.toolbox.run_cosign(signing.cosign, verification_steps(signing.cosign, image))
    say(f"attested and verified: {image.index}")


async def existing_image(run: Run, reference: Reference) -> Published:
    """Return an image that is there, by digest, with its platforms.

    Raises:
        PipelineError: it is not there, or malformed.
    """
    index = await run.toolbox.resolve(reference)
    if index.digest != reference.digest:
        say(f"{reference} is now {index}")
    return Published(index, await run.toolbox.platforms(index))


async def built_image(run: Run, image: str) -> Built:
    """Return an image, built and run as asked for."""
    options = run.options
    return await build_image(run.build, image, run.platforms[image], jobs=options.jobs, has_smoke=options.smoke)


async def push_image(run: Run, built: Built, signing: Signing, version_tag: str = "") -> Publication:
    """Return an image, pushed below the prefix; see `publication.push_signed`."""
    if run.options.prefix is None:
        raise UsageError("--registry is missing")
    where = image_reference(run.options.prefix, built.image)
    return await push_signed(
        run.toolbox,
        run.build,
        built,
        where=where.tagged(run.staging),
        signing=signing,
        origin=run.origin,
        started=run.started,
        version_tag=version_tag,
    )


def say(text: str) -> None:
    """Print a line of the result; everything else goes to the error output."""
    print(text, flush=True)  # noqa: T201 - what the verb found is printed


def say_published(publication: Publication, tags: Sequence[str]) -> None:
    """Print where an image is, and that it was verified."""
    say(f"\npublished, signed and verified: {publication.published.index}")
    for tag in tags:
        say(f"  {publication.published.index.tagged(tag)}")
