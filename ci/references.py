"""References of images as the pipeline reads and writes them: registry, repository, tag, digest. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ci.errors import UsageError

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?|\[[0-9a-fA-F:]+\](:[0-9]{1,5})?")
# distribution-spec, Pulling manifests: <name>, <reference>.
_NAME: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")

DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
"""Names of Docker Hub, which has repositories of two levels only, `NAMESPACE/NAME`."""
_DOCKER_HUB_LEVELS: Final = 2


@dataclass(frozen=True)
class Reference:
    """`registry/repository[:tag][@digest]`."""

    registry: str
    """Host and port."""
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        """Return it as every tool reads it."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def name(self) -> str:
        """`registry/repository`."""
        return f"{self.registry}/{self.repository}"

    def at(self, digest: str) -> Reference:
        """Return the reference of a manifest in the same repository, by digest alone: what is signed and verified.

        Raises:
            UsageError: the digest is none.
        """
        return Reference(self.registry, self.repository, digest=parse_digest(digest))

    def tagged(self, tag: str) -> Reference:
        """Return the reference of a tag in the same repository.

        Raises:
            UsageError: the tag is none that a registry takes.
        """
        return Reference(self.registry, self.repository, tag=parse_tag_name(tag))


def parse_reference(text: str) -> Reference:
    """Return the parts of a reference; the registry must be named, nothing is guessed.

    Raises:
        UsageError: it is none.
    """
    rest, has_digest, digest = text.strip().partition("@")
    registry, _, path = rest.partition("/")
    repository, has_tag, tag = path.partition(":")
    is_host = "." in registry or ":" in registry or registry == "localhost"
    if not (is_host and _HOST.fullmatch(registry) and _NAME.fullmatch(repository)):
        raise UsageError(f"{text!r} is no reference: wanted is REGISTRY/REPOSITORY[:TAG][@sha256:…]")
    return Reference(
        registry,
        repository,
        tag=parse_tag_name(tag) if has_tag else "",
        digest=parse_digest(digest) if has_digest else "",
    )


def parse_prefix(text: str) -> Reference:
    """Return where images go: `REGISTRY[/PATH]` without tag and digest; the repository may be empty.

    Raises:
        UsageError: it is none.
    """
    registry, _, path = text.strip().rstrip("/").partition("/")
    if not _HOST.fullmatch(registry) or (path and not _NAME.fullmatch(path)):
        raise UsageError(f"{text!r} is no place for images: wanted is REGISTRY[/PATH], such as ghcr.io/acme")
    return Reference(registry, path)


def image_reference(prefix: Reference, image: str) -> Reference:
    """Return the repository of an image or chart below the prefix, without tag and digest."""
    return Reference(prefix.registry, f"{prefix.repository}/{image}" if prefix.repository else image)


def refuse_levels(repository: Reference) -> None:
    """Refuse a repository that its registry cannot have.

    Raises:
        UsageError: it is Docker Hub, and the repository has more than two levels.
    """
    if repository.registry in DOCKER_HUB and repository.repository.count("/") >= _DOCKER_HUB_LEVELS:
        raise UsageError(f"{repository.name}: Docker Hub takes NAMESPACE/NAME alone: choose another --registry")


def parse_digest(text: str) -> str:
    """Return the digest.

    Raises:
        UsageError: it is none.
    """
    if not _DIGEST.fullmatch(text):
        raise UsageError(f"{text!r} is no digest: wanted is sha256: and 64 hex digits")
    return text


def parse_tag_name(text: str) -> str:
    """Return the tag.

    Raises:
        UsageError: no registry takes it.
    """
    if not _TAG.fullmatch(text):
        raise UsageError(f"{text!r} is no tag: wanted are up to 128 letters, digits, '.', '_' and '-'")
    return text
