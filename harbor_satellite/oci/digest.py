"""Digests: the names of content. Parsing, computing and comparing them; no reading of files or sockets."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import DigestMismatchError, InvalidInputError

if TYPE_CHECKING:
    from hashlib import _Hash

# image-spec, descriptor.md: registered algorithms and the length of their hex form.
_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_DIGEST: Final = re.compile(r"(?P<algorithm>sha256|sha512):(?P<hex>[0-9a-f]+)")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and the lower-case hex of its sum; ``str()`` gives ``sha256:…``."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``algorithm:hex``.

        Raises:
            InvalidInputError: unknown algorithm, wrong length or not lower-case hex.
        """
        match = _DIGEST.fullmatch(text)
        if match is None or len(match["hex"]) != _HEX_LENGTH[match["algorithm"]]:
            raise InvalidInputError(f"not a sha256 or sha512 digest: {text[:160]!r}")
        return cls(match["algorithm"], match["hex"])

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """Compute the digest of bytes in memory."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    @classmethod
    def from_hasher(cls, hasher: _Hash) -> Digest:
        """Take the digest out of a ``hashlib`` object that has seen all bytes."""
        return cls(hasher.name, hasher.hexdigest())

    def hasher(self) -> _Hash:
        """Start a ``hashlib`` object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def verify(self, content: bytes, what: str) -> None:
        """Check bytes in memory against this digest.

        Raises:
            DigestMismatchError: they differ; the message names ``what`` and both digests.
        """
        got = Digest.of(content, self.algorithm)
        if got != self:
            raise DigestMismatchError(f"digest mismatch for {what}: expected {self}, got {got}")

    @property
    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def is_digest(text: str) -> bool:
    """Tell whether text is a well-formed digest (and so not a tag)."""
    match = _DIGEST.fullmatch(text)
    return match is not None and len(match["hex"]) == _HEX_LENGTH[match["algorithm"]]
