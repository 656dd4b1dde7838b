"""Signing of states: each is signed with the centre's key before anybody is sent to it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from harbor_satellite.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydantic import SecretStr

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.cosign import Cosign, RegistryAccess

_LOG = logging.getLogger(__name__)
UNSIGNED_TAG: Final = "next"
"""Names a state without a tag of its own while it is signed."""


class Pusher(Protocol):
    """Pushes states."""

    def push(self, repository: str, tags: Iterable[str], raw: bytes) -> Digest:
        """Push a state under every tag, in the given order, and return its manifest's digest."""
        ...


class StateSigner:
    """Signs states at one registry with one key, those only that the key has not signed yet.

    Args:
        cosign: the program.
        registry: where states are pushed, as somebody who may push.
        key: the private key, as ``cosign generate-key-pair`` writes it.
        password: of that key.
    """

    def __init__(self, cosign: Cosign, registry: RegistryAccess, key: Path, password: SecretStr) -> None:
        self._cosign = cosign
        self._registry = registry
        self._key = key
        self._password = password

    @cached_property
    def public_key(self) -> str:
        """The public half of the key; raises ``SignatureError`` if the key cannot be used."""
        return self._cosign.public_key(self._key, self._password)

    def ensure_signed(self, repository: str, digest: Digest) -> bool:
        """Sign a state that is at the registry, unless that was done before; return whether it was signed now.

        Raises:
            SignatureError: it cannot be signed, or the registry did not keep the signature.
        """
        keys = (self.public_key,)
        try:
            self._cosign.verify(self._registry, repository, digest, keys)
        except SignatureError as error:
            if error.retryable:  # nobody could look
                raise
        else:
            return False
        self._cosign.sign(self._registry, repository, digest, key=self._key, password=self._password)
        self._cosign.verify(self._registry, repository, digest, keys)
        _LOG.info("signed state repository=%s digest=%s", repository, digest)
        return True


@dataclass(frozen=True, slots=True)
class SigningPusher:
    """Pushes states so that the last tag, which moves, never names one without a signature."""

    pusher: Pusher
    signer: StateSigner

    def push(self, repository: str, tags: Iterable[str], raw: bytes) -> Digest:
        """Push under all tags but the last, sign, then move the last.

        Raises:
            RemoteError: the registry refused or could not be reached.
            SignatureError: it could not be signed; the last tag stays where it was.
        """
        *own, moving = tags
        digest = self.pusher.push(repository, own or (UNSIGNED_TAG,), raw)
        self.signer.ensure_signed(repository, digest)
        return self.pusher.push(repository, (moving,), raw)
