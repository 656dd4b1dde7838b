"""The state of a satellite: which generation of each group it follows. Values and their canonical JSON; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harbor_satellite.errors import InvalidInputError, MalformedStateError
from harbor_satellite.oci.reference import Reference
from harbor_satellite.state.artifact import reason_of, verified_json
from harbor_satellite.state.config import SatelliteConfig, config_json, read_config
from harbor_satellite.state.json_values import canonical_json, count, text
from harbor_satellite.state.names import GroupName, SatelliteName, group_name, satellite_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class StatePin:
    """Which generation of a group's state a satellite may have."""

    group: GroupName
    state: Reference
    """Where the state artifact is, pinned by digest unless the original wrote it."""
    generation: int = 0
    is_rollback: bool = False
    """Whether the centre went back on purpose: then an older generation is taken."""


@dataclass(frozen=True, slots=True)
class SatelliteState:
    """Everything one satellite is to follow: a pinned state per group, and its config."""

    satellite: SatelliteName | None
    """None in a state of the original, which does not name it."""
    groups: tuple[StatePin, ...]
    config: str = ""
    """URL of the satellite config; empty if it has none."""
    scheme: str = field(default="https", compare=False)
    serial: int = 0
    """Counts up with every publication for this satellite; 0 in a state that has none: then it cannot be ordered."""
    settings: SatelliteConfig | None = None
    """How the centre wants the site to work; None: nothing was said."""
    problems: tuple[str, ...] = field(default=(), compare=False)
    """What of the settings was not understood here, a sentence each that begins with the field's name."""


def parse_satellite_state(raw: bytes, digest: Digest | None, what: str) -> SatelliteState:
    """Read a satellite state, ours (pins) or the original's (only URLs).

    Raises:
        DigestMismatchError: the bytes are not those of ``digest``.
        MalformedStateError: they do not parse, or two pins name one group.
        SizeLimitError: too many bytes.
    """
    document = verified_json(raw, digest, what)
    try:
        urls = [text(url) for url in document.get("states") or ()]
        pins = tuple(_pin(item) for item in document["groups"]) if "groups" in document else _pins_of_urls(urls)
        name = document.get("satellite")
        # Read leniently: a site must go on replicating under a centre that is newer than itself.
        settings, problems = (None, ()) if "settings" not in document else read_config(document["settings"])
        state = SatelliteState(
            satellite=satellite_name(name) if name else None,
            groups=tuple(sorted(pins, key=lambda pin: pin.group)),
            config=text(document.get("config") or ""),
            scheme="http" if any(url.startswith("http://") for url in urls) else "https",
            serial=count(document.get("serial", 0), "serial"),
            settings=settings,
            problems=problems,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InvalidInputError) as error:
        raise MalformedStateError(f"malformed satellite state {what}: {reason_of(error)}") from error
    if len({pin.group for pin in state.groups}) != len(state.groups):
        raise MalformedStateError(f"malformed satellite state {what}: a group is named twice")
    return state


def satellite_state_json(state: SatelliteState) -> bytes:
    """Write a satellite state: the original's ``states`` and ``config``, and what is ours beside them."""
    document: dict[str, object] = {
        "states": [
            f"{state.scheme}://{pin.state.registry}/{pin.state.repository}:{pin.state.tag or 'latest'}"
            for pin in state.groups
        ],
        "config": state.config,
        "satellite": state.satellite or "",
        "groups": [_pin_json(pin) for pin in state.groups],
    }
    # Left out when there is nothing to say, so that such a state keeps its bytes and its digest.
    if state.serial:
        document["serial"] = state.serial
    if state.settings is not None:
        document["settings"] = config_json(state.settings)
    return canonical_json(document)


def _pin(item: Mapping[str, Any]) -> StatePin:
    return StatePin(
        group=group_name(item["group"]),
        state=Reference.parse(text(item["state"])),
        generation=count(item.get("generation", 0), "generation"),
        is_rollback=item.get("rollback") is True,
    )


def _pin_json(pin: StatePin) -> dict[str, object]:
    document: dict[str, object] = {"group": pin.group, "state": str(pin.state), "generation": pin.generation}
    return document | ({"rollback": True} if pin.is_rollback else {})


def _pins_of_urls(urls: list[str]) -> tuple[StatePin, ...]:
    pins = []
    for url in urls:
        reference = Reference.parse(url)
        parts = reference.repository.split("/")
        if parts[-1] != "state" or "group-state" not in parts[:-2]:
            raise InvalidInputError(f"not the address of a group's state: {url[:300]!r}")
        pins.append(StatePin(group_name(parts[-2]), reference))
    return tuple(pins)
