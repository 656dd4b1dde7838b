"""What a group may ask for besides its artifacts: checked when it is written, kept as one JSON value."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.platform import Platform
from harbor_satellite.state.policy import (
    DEFAULT_POLICY,
    KEY_MAX_LENGTH,
    KEYS_MAX_COUNT,
    GroupPolicy,
    Publish,
    parse_key,
    parse_policy,
    policy_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PLATFORMS_MAX_COUNT: Final = 64
PRIORITY_LIMIT: Final = 1_000_000
"""Priorities are between this and its negative."""
_PUBLIC_KEY: Final = re.compile(
    r"\s*-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END PUBLIC KEY-----\s*", re.ASCII
)
_DER_SEQUENCE: Final = 0x30  # what every SubjectPublicKeyInfo (RFC 5280) begins with


def changed_policy(
    policy: GroupPolicy,
    *,
    publish: Publish | None = None,
    platforms: Sequence[str] | None = None,
    signature_keys: Sequence[str] | None = None,
) -> GroupPolicy:
    """Return a policy with what was said anew; None leaves a part as it is.

    Leaving out must not mean giving up: a client of the original, which knows no keys, would silently end the
    checking of signatures.

    Raises:
        InvalidInputError: a value breaks its rule; the message names the field and, of a list, the place.
    """
    return GroupPolicy(
        publish=policy.publish if publish is None else publish,
        platforms=policy.platforms if platforms is None else _platforms(platforms),
        signature_keys=policy.signature_keys if signature_keys is None else _keys(signature_keys),
    )


def check_priority(priority: int, repository: str) -> int:
    """Return a priority that a state can carry; raises ``InvalidInputError``."""
    if abs(priority) > PRIORITY_LIMIT:
        raise InvalidInputError(f"{repository}: priority is not between -{PRIORITY_LIMIT} and {PRIORITY_LIMIT}")
    return priority


def stored_policy(policy: GroupPolicy) -> Any:
    """Return a policy as its column holds it; None for the default."""
    return None if policy == DEFAULT_POLICY else policy_json(policy)["policy"]


def read_policy(stored: Any) -> GroupPolicy:
    """Read a policy from its column."""
    return parse_policy(stored)


def _platforms(texts: Sequence[str]) -> tuple[Platform, ...]:
    _check_count("platforms", texts, PLATFORMS_MAX_COUNT)
    found = set()
    for number, text in enumerate(texts):
        try:
            found.add(Platform.parse(text))
        except InvalidInputError as error:
            raise InvalidInputError(f"platforms[{number}]: {error}") from error
    return tuple(sorted(found, key=str))


def _keys(texts: Sequence[str]) -> tuple[str, ...]:
    _check_count("signature_keys", texts, KEYS_MAX_COUNT)
    for number, text in enumerate(texts):
        if len(text) > KEY_MAX_LENGTH or not _is_public_key(text):
            # The text is not repeated: somebody may have taken the private key for it.
            raise InvalidInputError(f"signature_keys[{number}]: not a public key in PEM, as cosign.pub holds it")
    return tuple(sorted({parse_key(text) for text in texts}))


def _is_public_key(text: str) -> bool:
    found = _PUBLIC_KEY.fullmatch(text)
    if found is None:
        return False
    try:
        content = base64.b64decode("".join(found[1].split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    return content[:1] == bytes([_DER_SEQUENCE])


def _check_count(field: str, items: Sequence[str], limit: int) -> None:
    if len(items) > limit:
        raise InvalidInputError(f"{field}: {len(items)} of them; at most {limit} are taken")
