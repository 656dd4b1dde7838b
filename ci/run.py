"""What a verb is to do, with all that it needs: read and checked before anything is built."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ci.checkout import is_changed, read_build, remote_url
from ci.credentials import registry_logins, signing_secrets
from ci.errors import UsageError
from ci.platforms import choose_platforms
from ci.provenance import origin_of, without_credentials
from ci.publication import Signing, staging_tag
from ci.references import image_reference, refuse_levels
from ci.release_plan import chart_reference, plan_release
from ci.signing import Cosign, Trust
from ci.toolbox import Toolbox

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ci.context import Build
    from ci.options import Options
    from ci.provenance import Origin
    from ci.references import Reference

COSIGN_FOLDER: Final = "/cosign"


@dataclass(frozen=True)
class Run:
    """A verb, with everything that it needs read and checked: what is missing is told before anything is built."""

    options: Options
    build: Build
    toolbox: Toolbox
    environment: Mapping[str, str] = field(repr=False)
    started: datetime
    platforms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Image → names of the platforms it is built for."""
    staging: str = ""
    """The tag that images have until they are signed; empty: none is pushed. It is decided once: what a run writes into
    the checkout would make it another."""

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
    # A release has all images: its chart and compose files name them.
    is_strict = options.is_image_chosen or options.verb == "release"
    chosen = choose_platforms(options.images, options.platforms, is_strict=is_strict)
    options = replace(options, images=tuple(chosen))
    registries = [each.registry for each in (options.prefix, *options.references) if each is not None]
    logins = registry_logins(environment, registries, options.docker_config)
    is_released = options.verb == "release" and not options.dry_run
    is_published = options.verb == "publish" or is_released
    _refuse_places(options)
    if options.verb == "release":
        plan_release(options, build.source, build.commit, environment)
    run = Run(
        options,
        build,
        Toolbox(options.tools, logins, options.plain_http),
        environment,
        datetime.now(UTC),
        {image: tuple(platform.name for platform in platforms) for image, platforms in chosen.items()},
        staging_tag(build, is_changed=is_changed(build.source)) if is_published else "",
    )
    _refuse_unsigned(run, is_published=is_published)
    return run


def _refuse_unsigned(run: Run, *, is_published: bool) -> None:
    """Refuse what lacks a key or an identity, or would sign what a tag may name by then."""
    verb, signs_there = run.options.verb, run.options.verb == "sign" or _attests(run.options)
    if signs_there:
        _refuse_tags(run.options.references)
    if is_published or signs_there:
        run.signing()
    elif verb == "verify":
        run.signing(signs=False)


def _attests(options: Options) -> bool:
    return options.verb == "sbom" and options.attest


def _refuse_places(options: Options) -> None:
    """Refuse where something that is going to be pushed has no place."""
    if options.prefix is None:
        return
    for image in options.images:
        refuse_levels(image_reference(options.prefix, image))
    if options.verb == "release":
        refuse_levels(chart_reference(options.prefix))


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
