"""References: ``registry/repository:tag@digest``, and the rules for their parts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.digest import Digest, is_digest

# distribution-spec, "Pulling manifests": <name> and <reference> as a tag.
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_REGISTRY: Final = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_PORT_MAX: Final = 65535
_REPOSITORY_MAX_LENGTH: Final = 255  # characters; the limit of every registry met so far

DOCKER_HUB: Final = "docker.io"


def check_repository(repository: str) -> str:
    """Return the repository's name if it keeps to distribution-spec.

    Raises:
        InvalidInputError: it does not (upper case, empty component, ``..``, too long).
    """
    if len(repository) > _REPOSITORY_MAX_LENGTH or _REPOSITORY.fullmatch(repository) is None:
        raise InvalidInputError(f"not a repository name: {repository[:300]!r}")
    return repository


def check_tag(tag: str) -> str:
    """Return the tag if it keeps to distribution-spec.

    Raises:
        InvalidInputError: it does not.
    """
    if _TAG.fullmatch(tag) is None:
        raise InvalidInputError(f"not a tag: {tag[:200]!r}")
    return tag


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One artifact at one registry, by tag, by digest or by both."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __post_init__(self) -> None:
        match = _REGISTRY.fullmatch(self.registry)
        if match is None or int(match["port"] or 0) > _PORT_MAX:
            # Not all of it: a user and a password may stand before the host.
            raise InvalidInputError(f"not a registry (host or host:port): {self.registry.split('@')[-1][:200]!r}")
        check_repository(self.repository)
        if self.tag:
            check_tag(self.tag)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as people write it: ``alpine``, ``acme/app:1``, ``host:5000/a/b@sha256:…``.

        Names without a registry mean Docker Hub; neither tag nor digest means the tag ``latest``.
        A scheme in front (``http://``, ``https://``, ``oci://``) is dropped.

        Raises:
            InvalidInputError: any part breaks its rule.
        """
        rest = text.split("://", 1)[-1]
        rest, at, digest_text = rest.partition("@")
        digest = Digest.parse(digest_text) if at else None
        tag = ""
        head, colon, last = rest.rpartition(":")
        if colon and "/" not in last:
            rest, tag = head, check_tag(last)
        registry, repository = _split_registry(rest)
        if not tag and digest is None:
            tag = "latest"
        return cls(registry, repository, tag, digest)

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag."""
        return str(self.digest) if self.digest else self.tag

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same reference pinned to a digest."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    has_registry = slash and ("." in first or ":" in first or first == "localhost")
    if has_registry:
        return (first, rest) if first != DOCKER_HUB or "/" in rest else (first, f"library/{rest}")
    return DOCKER_HUB, name if slash else f"library/{name}"


def reference_kind(text: str) -> str:
    """Tell whether the last part of a manifest's address is a ``"digest"`` or a ``"tag"``.

    Raises:
        InvalidInputError: it is neither.
    """
    if is_digest(text):
        return "digest"
    check_tag(text)
    return "tag"
