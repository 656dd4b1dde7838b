"""What each verb does, from what the user asked to what is printed. The engine is connected already."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dagger
from dagger import dag

from ci.building import Built, build_image, rows, write_archive
from ci.checkout import is_changed, read_build, remote_url
from ci.checks import CHECK, TEST, run_make
from ci.credentials import registry_login, signing_secrets
from ci.errors import PipelineError, UsageError
from ci.lock_debian import lock
from ci.provenance import origin_of, without_credentials
from ci.publication import Signing, image_sboms, publish, sbom_file, staging_tag
from ci.references import image_reference
from ci.release_plan import plan_release
from ci.report import table
from ci.signing import Cosign, Published, Trust, signing_steps, verification_steps
from ci.toolbox import WORK, Toolbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ci.context import Build
    from ci.options import Options
    from ci.provenance import Origin
    from ci.publication import Publication
    from ci.references import Reference
    from ci.report import Row

COSIGN_FOLDER: Final = "/cosign"


@dataclass(frozen=True)
class Run:
    """A verb, with everything that it needs read and checked: what is missing is told before anything is built."""

    options: Options
    build: Build
    toolbox: Toolbox
    environment: Mapping[str, str] = field(repr=False)
    started: datetime

    @property
    def origin(self) -> Origin:
        """Who builds, and from whose source."""
        origin = origin_of(self.environment)
        return origin if origin.source else replace(origin, source=without_credentials(remote_url(self.build.source)))

    def signing(self, *, signs: bool = True) -> Signing:
        """Return how is signed and verified.

        Args:
            signs: whether it is signed at all; else no private key is wanted.

        Raises:
            UsageError: a key or an identity is missing.
        """
        options = self.options
        trust = Trust(
            _text(options.public_key),
            options.identity,
            options.issuer,
            _text(options.signing_config),
            _text(options.trusted_root),
        )
        secrets = signing_secrets(self.environment, is_keyless=trust.is_keyless) if signs else {}
        return Signing(Cosign(trust, COSIGN_FOLDER, options.plain_http), secrets)


def prepare(options: Options, environment: Mapping[str, str]) -> Run:
    """Return a verb's run.

    Raises:
        UsageError: something is malformed or missing.
    """
    build = read_build(options.source, options.version, options.mirrors, options.tools)
    registries = {each.registry for each in (options.prefix, *options.references) if each is not None}
    logins = {registry: registry_login(environment, registry, options.docker_config) for registry in registries}
    known = {registry: login for registry, login in logins.items() if login is not None}
    run = Run(options, build, Toolbox(options.tools, known, options.plain_http), environment, datetime.now(UTC))
    if options.verb == "release":
        plan_release(options, build.source, build.commit, environment)
    is_released = options.verb == "release" and not options.dry_run
    if options.verb in {"publish", "sign"} or is_released or (options.verb == "sbom" and options.attest):
        run.signing()
    if options.verb == "verify":
        run.signing(signs=False)
    if options.verb == "publish" or is_released:
        staging_tag(build, is_changed=is_changed(build.source))
    if options.verb == "sign":
        _refuse_tags(options.references)
    return run


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
    signing = run.signing()
    # All are built before the first is pushed.
    built = [await built_image(run, image) for image in run.options.images]
    published = [await publish_image(run, each, run.options.tags, signing) for each in built]
    say(table([row for each in published for row in each.rows]))
    for each in published:
        say_published(each)


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
    """Write the SBOMs of images that are there; sign and attach them if asked for."""
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
            await _attest(run, image, sboms)


async def _attest(run: Run, image: Published, sboms: Mapping[str, dagger.File]) -> None:
    signing = run.signing()
    image = replace(image, sboms={platform: f"{WORK}/{sbom_file('image', platform)}" for platform in sboms})
    steps = signing_steps(signing.cosign, image)
    files = {image.sboms[platform]: file for platform, file in sboms.items()}
    await run.toolbox.run_cosign(signing.cosign, steps, secrets=signing.secrets, files=files)
    await run.toolbox.run_cosign(signing.cosign, verification_steps(signing.cosign, image))
    say(f"signed, attested and verified: {image.index}")


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
    return await build_image(run.build, image, options.platforms, jobs=options.jobs, has_smoke=options.smoke)


async def publish_image(
    run: Run, built: Built, tags: tuple[str, ...], signing: Signing, version_tag: str = ""
) -> Publication:
    """Return an image, published below the prefix; see `publication.publish`."""
    if run.options.prefix is None:
        raise UsageError("--registry is missing")
    where = image_reference(run.options.prefix, built.image)
    return await publish(
        run.toolbox,
        run.build,
        built,
        where=where.tagged(staging_tag(run.build, is_changed=is_changed(run.build.source))),
        tags=tags,
        signing=signing,
        origin=run.origin,
        started=run.started,
        version_tag=version_tag,
    )


def say(text: str) -> None:
    """Print a line of the result; everything else goes to the error output."""
    print(text, flush=True)  # noqa: T201 - what the verb found is printed


def say_published(publication: Publication) -> None:
    """Print where an image is, and that it was verified."""
    say(f"\npublished, signed and verified: {publication.published.index}")
    for tag in publication.tags:
        say(f"  {tag}")


def _refuse_tags(references: tuple[Reference, ...]) -> None:
    for reference in references:
        if not reference.digest:
            raise UsageError(f"{reference} is a tag, which may move: wanted is {reference.name}@sha256:…")


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
