"""Encryption with a key that is bound to this machine: bytes in, an envelope out, and back.

The key comes from what identifies the machine and from a salt that is kept apart from the envelope. The envelope names
the identities that it is bound to, so that one which moved to another machine can say so. What must not live here:
which files are encrypted, and where they are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError, OtherMachineError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # NIST SP 800-38D: 96 bits, random; far fewer than 2^32 of them are ever made
_KEY_BYTES: Final = 32
_VERSION: Final = 1
_MARK: Final = "encrypted"
_FINGERPRINT_LENGTH: Final = 16
_VALUE_MAX_BYTES: Final = 4096
_SOURCES: Final = {
    "machine-id": Path("/etc/machine-id"),
    "product-uuid": Path("/sys/class/dmi/id/product_uuid"),
    "board-serial": Path("/sys/class/dmi/id/board_serial"),
    "device-serial": Path("/proc/device-tree/serial-number"),
}
_NOTHING: Final = Path(os.devnull)
_NO_IDENTITY: Final = frozenset(
    {
        "",
        "uninitialized",  # /etc/machine-id of an image before its first boot
        "none",
        "default string",
        "not specified",
        "system serial number",
        "to be filled by o.e.m.",
        "03000200-0400-0500-0006-000700080009",  # boards whose maker never set one
    }
)


@dataclass(frozen=True, slots=True)
class MachineIdentity:
    """What tells this machine from others."""

    sources: Mapping[str, Path] = field(default_factory=lambda: _SOURCES)

    def value(self, name: str) -> str:
        """Return what a source says; empty if it says nothing, is unknown or cannot be read."""
        try:
            with self.sources.get(name, _NOTHING).open("rb") as file:
                text = file.read(_VALUE_MAX_BYTES).strip(b"\0 \t\r\n").decode("ascii", "replace")
        except OSError:
            return ""
        is_filler = text.lower() in _NO_IDENTITY or set(text.lower()) <= set("0-") or set(text.lower()) <= set("f-")
        return "" if is_filler else text

    def values(self, owner: int) -> dict[str, str]:
        """Return what every source says that the owner of the files can always read.

        A source for root alone is left out where the files are another user's: root, who may write them once, must not
        bind them to what their owner cannot read.
        """
        found = {name: self.value(name) for name, path in self.sources.items() if owner == 0 or _is_for_all(path)}
        return {name: value for name, value in found.items() if value}

    def where(self, name: str) -> str:
        """Name a source for a message."""
        return str(self.sources.get(name, name))


def check_encryption() -> None:
    """Do nothing if this installation can encrypt.

    Raises:
        InvalidInputError: the package for it is not installed.
    """
    _aead(bytes(_KEY_BYTES))


def is_sealed(document: Mapping[str, Any]) -> bool:
    """Tell whether a document is an envelope."""
    return _MARK in document and "ciphertext" in document


def seal(content: bytes, name: str, salt: bytes, values: Mapping[str, str]) -> dict[str, Any]:
    """Encrypt content.

    Args:
        content: what to protect.
        name: of its file: the content of one file is no good in the place of another.
        salt: kept apart from the envelope.
        values: what identifies this machine, by source; see ``MachineIdentity.values``.

    Raises:
        InvalidInputError: nothing identifies this machine, or the package is not installed.
    """
    if not values:
        raise InvalidInputError(
            "credentials cannot be bound to this machine: /etc/machine-id is empty or cannot be read (in a container, "
            "mount the host's), and its firmware tells no serial number; or unset HARBOR_SATELLITE_ENCRYPT_CREDENTIALS"
        )
    nonce = os.urandom(_NONCE_BYTES)
    return {
        _MARK: _VERSION,
        "salt_id": _salt_id(salt),
        "bound_to": {source: _fingerprint(salt, source, value) for source, value in sorted(values.items())},
        "nonce": base64.b64encode(nonce).decode(),
        "ciphertext": base64.b64encode(_aead(_key(salt, values)).encrypt(nonce, content, _bound(name))).decode(),
    }


def unseal(envelope: Mapping[str, Any], name: str, salt: bytes, identity: MachineIdentity) -> bytes:
    """Return the content of an envelope.

    Raises:
        OtherMachineError: it was made on another machine, or with another salt.
        StorageError: it is damaged, was changed, or belongs to another file.
        InvalidInputError: the package is not installed.
    """
    if envelope.get(_MARK) != _VERSION:
        raise StorageError(f"{name} is encrypted in a way that this release does not know: it was made by a newer one")
    try:
        bound_to = {str(source): str(value) for source, value in envelope["bound_to"].items()}
        nonce = base64.b64decode(envelope["nonce"], validate=True)
        ciphertext = base64.b64decode(envelope["ciphertext"], validate=True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"{name} is damaged: its envelope does not parse") from error
    _check_machine(name, str(envelope.get("salt_id")), bound_to, salt, identity)
    values = {source: identity.value(source) for source in bound_to}
    return _decrypt(_aead(_key(salt, values)), nonce, ciphertext, name)


def _check_machine(
    name: str, salt_id: str, bound_to: Mapping[str, str], salt: bytes, identity: MachineIdentity
) -> None:
    if salt_id != _salt_id(salt):
        raise OtherMachineError(
            f"{name} cannot be decrypted: the salt in machine-key.json is not the one it was made with"
        )
    for source, expected in bound_to.items():
        value = identity.value(source)
        if not value:
            raise OtherMachineError(
                f"{name} is bound to {identity.where(source)}, which says nothing here or is not for us"
            )
        if not hmac.compare_digest(_fingerprint(salt, source, value), expected):
            raise OtherMachineError(
                f"{name} was encrypted on another machine: {identity.where(source)} is not the same"
            )


def _decrypt(aead: AESGCM, nonce: bytes, ciphertext: bytes, name: str) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  (an extra; `_aead` has looked for it)

    try:
        return aead.decrypt(nonce, ciphertext, _bound(name))
    except (InvalidTag, ValueError) as error:
        raise StorageError(f"{name} is damaged: it was changed after it was encrypted, or is another file's") from error


def _aead(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise InvalidInputError(
            "credentials on disk are encrypted, or shall be (HARBOR_SATELLITE_ENCRYPT_CREDENTIALS), and the package "
            "for it is not installed: pip install 'harbor-satellite[encryption]'"
        ) from error
    return AESGCM(key)


def _key(salt: bytes, values: Mapping[str, str]) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  (an extra)
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    # RFC 5869. Not scrypt: the salt is a secret of 256 bits, nobody guesses it.
    identity = json.dumps(sorted(values.items())).encode()
    return HKDF(SHA256(), _KEY_BYTES, salt, b"harbor-satellite credentials 1").derive(identity)


def _bound(name: str) -> bytes:
    return f"harbor-satellite {_VERSION} {name}".encode()


def _fingerprint(salt: bytes, source: str, value: str) -> str:
    return hmac.new(salt, f"{source}\0{value}".encode(), hashlib.sha256).hexdigest()[:_FINGERPRINT_LENGTH]


def _salt_id(salt: bytes) -> str:
    return hashlib.sha256(b"harbor-satellite salt\0" + salt).hexdigest()[:_FINGERPRINT_LENGTH]


def _is_for_all(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
