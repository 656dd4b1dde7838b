"""How a group wants its images brought to its sites: decided at the centre, carried in the group's state. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.platform import Platform
from harbor_satellite.state.json_values import shown, text, values

if TYPE_CHECKING:
    from collections.abc import Mapping

Publish = Literal["together", "each"]
KEYS_MAX_COUNT: Final = 32
KEY_MAX_LENGTH: Final = 16 * 1024  # characters of PEM


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """What a group asks for besides its artifacts; the default asks for nothing."""

    publish: Publish = "together"
    """``together``: tags move once every image of the group is at the site; ``each``: image by image."""
    platforms: tuple[Platform, ...] = ()
    """Children of indexes to bring, sorted; empty: all, unless the site chooses."""
    signature_keys: tuple[str, ...] = ()
    """Public keys (PEM) of cosign, sorted; one of them must have signed each image. Empty: nobody must."""


DEFAULT_POLICY: Final = GroupPolicy()


def parse_policy(item: Any) -> GroupPolicy:
    """Read a policy from a state's JSON; absent means the default.

    Raises:
        InvalidInputError: a value is not what it should be; a policy is never half understood.
    """
    if item is None:
        return DEFAULT_POLICY
    if not isinstance(item, dict):
        raise InvalidInputError(f"policy is not an object: {shown(item)}")
    publish = item.get("publish", "together")
    if publish not in {"together", "each"}:
        raise InvalidInputError(f"publish is neither together nor each: {shown(publish)}")
    return GroupPolicy(
        publish=publish,
        platforms=tuple(sorted({Platform.parse(text(one)) for one in values(item.get("platforms"))}, key=str)),
        signature_keys=tuple(sorted({parse_key(one) for one in _keys(item.get("signature_keys"))})),
    )


def _keys(value: Any) -> list[Any]:
    if isinstance(value, str):
        raise InvalidInputError("signature_keys is not a list")  # not shown: that may be a private key
    return values(value)


def policy_json(policy: GroupPolicy) -> Mapping[str, object]:
    """Write a policy as the one key that a state has for it; none for the default: older states stay as they are."""
    if policy == DEFAULT_POLICY:
        return {}
    document: dict[str, object] = {
        "publish": policy.publish,
        "platforms": sorted(str(platform) for platform in policy.platforms),
        "signature_keys": sorted(policy.signature_keys),
    }
    return {"policy": document}


def parse_key(item: Any) -> str:
    """Read a public key in PEM, as ``cosign.pub`` holds it.

    Raises:
        InvalidInputError: it is none.
    """
    key = item.strip() + "\n" if isinstance(item, str) else ""
    if not key.startswith("-----BEGIN PUBLIC KEY-----") or len(key) > KEY_MAX_LENGTH or "PRIVATE KEY" in key:
        # Not what it is instead: that may be the private key.
        raise InvalidInputError("not a public key in PEM, as cosign.pub holds it; is it the private one?")
    return key
