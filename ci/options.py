"""The command line: what each verb takes, as plain values. Secrets are no part of it. Pure."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ci.context import Mirrors
from ci.platforms import PLATFORMS_OF
from ci.references import Reference, parse_prefix, parse_reference, parse_tag_name
from ci.tools import parse_tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SECRETS: Final = """
secrets, from the environment only (each may be NAME_FILE instead, the name of a file):
  COSIGN_PRIVATE_KEY, COSIGN_PASSWORD   key pair that signs
  SIGSTORE_ID_TOKEN                     identity that signs without a key; on GitHub
  ACTIONS_ID_TOKEN_REQUEST_URL, …_TOKEN (permission id-token: write)
  REGISTRY_USERNAME, REGISTRY_PASSWORD  who pushes (or --docker-config)
  GITHUB_TOKEN                          who makes the release at GitHub
engine: Docker or Podman start one; or _EXPERIMENTAL_DAGGER_RUNNER_HOST names one.
exit codes: 0 done; 1 a step failed; 2 the command line, a variable or the engine.
"""


@dataclass(frozen=True)
class Options:
    """What the user asked for; what a verb does not take has its default."""

    verb: str
    source: Path = Path()
    """The checkout."""
    version: str = ""
    """PEP 440; empty: from the tag or the package."""
    images: tuple[str, ...] = ()
    is_image_chosen: bool = False
    """Whether the user named the images; else they are all."""
    platforms: tuple[str, ...] = ()
    """Names; none: all of the image."""
    mirrors: Mirrors = field(default_factory=Mirrors)
    tools: Mapping[str, str] = field(default_factory=dict)
    """Name → reference, for those that are not to be the table's."""
    jobs: int = 0
    """Platforms built and smoked at once; 0: one for each processor."""
    smoke: bool = True
    output: Path | None = None
    prefix: Reference | None = None
    """Where images go."""
    tags: tuple[str, ...] = ()
    release_tag: str = ""
    """Git's: `v1.2.3`."""
    references: tuple[Reference, ...] = ()
    plain_http: frozenset[str] = frozenset()
    docker_config: Path | None = None
    public_key: Path | None = None
    identity: str = ""
    issuer: str = ""
    signing_config: Path | None = None
    trusted_root: Path | None = None
    attest: bool = False
    dry_run: bool = False
    github: str = ""
    """`OWNER/REPOSITORY` of the release at GitHub; empty: none is made."""
    arguments: tuple[str, ...] = ()
    """For pytest."""
    quiet: bool = False


def parse(argv: Sequence[str]) -> Options:
    """Return what a command line asks for.

    Raises:
        UsageError: a value is malformed.
        SystemExit: as argparse ends: 2 for a wrong line, 0 after help.
    """
    given = vars(_parser().parse_args(argv))
    given["mirrors"] = Mirrors(
        given.pop("pip_conf", None), given.pop("apt_sources", None), given.pop("ca_bundle", None)
    )
    given["is_image_chosen"] = bool(given.get("images"))
    given["images"] = tuple(given.get("images") or PLATFORMS_OF)
    given["platforms"] = tuple(given.get("platforms") or ())
    given["tools"] = parse_tools(given.get("tools") or ())
    given["plain_http"] = frozenset(given.get("plain_http") or ())
    given["tags"] = tuple(parse_tag_name(tag) for tag in given.get("tags") or ())
    given["references"] = tuple(parse_reference(text) for text in given.get("references") or ())
    given["arguments"] = tuple(given.get("arguments") or ())
    if prefix := given.get("prefix"):
        given["prefix"] = parse_prefix(prefix)
    return Options(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ci",
        description="Builds, tests, publishes and signs Harbor Satellite; the same on a laptop and in any CI.",
        epilog=_SECRETS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, about: str, *groups: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(
            name, help=about, description=about, epilog=_SECRETS, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        for group in ("common", *groups):
            _GROUPS[group](added)
        return added

    test = verb("test", "Run the tests in a container; arguments after -- go to pytest")
    test.add_argument("arguments", nargs="*", metavar="-- ARGUMENT", help="for pytest")
    verb("check", "Check format, lint, types and layers in a container")
    verb("lock", "Resolve the images' Debian packages anew into ci/locks")
    build = verb("build", "Build the images for all or some platforms, and run each", "images")
    build.add_argument("--output", type=Path, metavar="DIR", help="write an OCI archive of each image here")
    publish = verb("publish", "Build, push, sign, attest, verify; only then set the tags", "images", "push", "trust")
    publish.add_argument(
        "--tag", dest="tags", action="append", required=True, metavar="TAG", help="tag to set; may be repeated"
    )
    verb("sign", "Sign images that are there, by digest, and verify", "existing", "trust")
    verify = verb(
        "verify", "Verify signatures of images that are there, of the index and each platform", "existing", "trust"
    )
    verify.add_argument(
        "--attestations", dest="attest", action="store_true", help="SBOMs and provenance must be there too"
    )
    sbom = verb("sbom", "Write the SBOM of each platform of images that are there (SPDX JSON)", "existing", "trust")
    sbom.add_argument("--output", type=Path, metavar="DIR", default=Path("dist"), help="where to (default: dist)")
    sbom.add_argument("--attest", action="store_true", help="attest them to signed images, by digest, and verify")
    _release(
        verb("release", "Make a release of a git tag: images, packages, chart, checksums", "images", "push", "trust")
    )
    return parser


def _release(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--tag", dest="release_tag", required=True, metavar="vX.Y.Z", help="the release's git tag")
    add("--output", type=Path, metavar="DIR", default=Path("dist"), help="its files (default: dist)")
    add("--dry-run", action="store_true", help="build and show everything, publish nothing")
    add("--github", default="", metavar="OWNER/REPOSITORY", help="make the release at GitHub too")


def _common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("where from").add_argument
    add("--source", type=Path, default=Path(), metavar="DIR", help="the checkout (default: here)")
    add("--pip-conf", type=Path, metavar="FILE", help="pip's configuration for builds behind a mirror")
    add("--apt-sources", type=Path, metavar="FILE", help="sources.list or .sources for trixie behind a mirror")
    add("--ca-bundle", type=Path, metavar="FILE", help="certificates, PEM, that mirrors need")
    add("--tool", dest="tools", action="append", metavar="NAME=REFERENCE", help="another image of a tool (ci/tools.py)")
    add("--quiet", action="store_true", help="do not show the engine's log")


def _images(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what").add_argument
    add("--image", dest="images", action="append", choices=list(PLATFORMS_OF), help="only this one; may be repeated")
    add("--platform", dest="platforms", action="append", metavar="OS/ARCH", help="only these, by commas or repeated")
    add("--version", default="", help="of the package, PEP 440 (default: the tag's or the package's)")
    add("--jobs", type=int, default=0, metavar="N", help="platforms at once (default: the processors)")
    add("--no-smoke", dest="smoke", action="store_false", help="do not run the images")


def _push(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("where to").add_argument
    add("--registry", dest="prefix", required=True, metavar="REGISTRY[/PATH]", help="images go to REGISTRY/PATH/IMAGE")
    _registry(parser)


def _existing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("references", nargs="+", metavar="REFERENCE", help="REGISTRY/REPOSITORY@sha256:…")
    _registry(parser)


def _registry(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("registry").add_argument
    insecure = "this registry speaks HTTP without TLS; may be repeated (the engine must know it too)"
    add("--insecure-registry", dest="plain_http", action="append", metavar="HOST[:PORT]", help=insecure)
    add("--docker-config", type=Path, metavar="FILE", help="logins, such as ~/.docker/config.json")


def _trust(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("signatures: a key, or an identity").add_argument
    add("--public-key", type=Path, metavar="FILE", help="cosign.pub: what was published is verified with it")
    add("--identity", default="", help="of the certificate, without a key: the workflow's URL")
    add("--issuer", default="", help="of the identity: https://token.actions.githubusercontent.com")
    add("--signing-config", type=Path, metavar="FILE", help="of a private Sigstore")
    add("--trusted-root", type=Path, metavar="FILE", help="of a private Sigstore")


_GROUPS: Final = {"common": _common, "images": _images, "push": _push, "existing": _existing, "trust": _trust}
