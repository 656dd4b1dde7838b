"""The config of a satellite: how the centre wants a site to work. Values and their JSON; pure.

Every field may be left out: then the site's own setting stays. What must not live here: secrets, which
``secret_check`` refuses, and how a site weighs these values against its own (``satellite/site_config.py``).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.platform import Platform
from harbor_satellite.state import config_values as check
from harbor_satellite.state.cron import check_schedule
from harbor_satellite.state.json_values import shown, text
from harbor_satellite.state.secret_check import refuse_secrets
from harbor_satellite.state.windows import SyncWindows, load_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ALWAYS: Final = "UTC"  # the zone of a window matters for when it opens, not for whether it is one
_DAY: Final = 24 * 3600  # seconds
_LONGEST_RETENTION: Final = 10 * 366 * _DAY  # seconds

REGISTRY_KINDS: Final = ("embedded", "zot", "external")
RUNTIME_NAMES: Final = ("containerd", "crio", "podman", "docker")


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """How a site's local registry shall be run."""

    kind: str | None = None
    """``embedded`` in the agent, ``zot`` beside it, or ``external``: somebody else runs it."""
    port: int | None = None
    """TCP port."""
    anonymous_read: bool | None = None
    """Whether containers may be pulled without a user."""
    retention_seconds: int | None = None
    """How long content that nothing names is kept."""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Which container runtimes of a site shall pull from its local registry."""

    names: tuple[str, ...] | None = None
    """Of ``containerd``, ``crio``, ``podman`` and ``docker``."""
    registries: tuple[str, ...] | None = None
    """The registries, as ``host[:port]``, whose images the local registry stands in for."""
    fallback: bool | None = None
    """Whether a runtime asks the registry itself for what the local one lacks."""


@dataclass(frozen=True, slots=True)
class SatelliteConfig:
    """How the centre wants a site to work; None: the site's own setting stays."""

    schedule: str | None = None
    """When the site replicates: 5-field cron in its time zone."""
    timezone: str | None = None
    """IANA name: of the schedule, sync windows, days and months."""
    sync_windows: tuple[str, ...] | None = None
    """When bytes may move; empty: always."""
    bytes_per_second: int | None = None
    daily_bytes: int | None = None
    monthly_bytes: int | None = None
    platforms: tuple[Platform, ...] | None = None
    """Children of indexes to bring for groups that do not choose themselves; empty: all."""
    image_workers: int | None = None
    blob_workers: int | None = None
    poll_interval_seconds: int | None = None
    """How often the site asks for work."""
    report_interval_seconds: int | None = None
    """How often the site reports when nothing happens."""
    disk_reserve_bytes: int | None = None
    """Free bytes of the disk that a replication never touches."""
    registry: RegistrySettings | None = None
    runtimes: RuntimeSettings | None = None


_Part = TypeVar("_Part", bound=SatelliteConfig | RegistrySettings | RuntimeSettings)


def _windows(value: Any) -> tuple[str, ...]:
    windows = check.texts(value.split(";") if isinstance(value, str) else value)
    return SyncWindows.parse(tuple(window for window in windows if window), _ALWAYS).texts


def _zone(value: Any) -> str:
    load_zone(text(value))
    return text(value)


def _platforms(value: Any) -> tuple[Platform, ...]:
    return tuple(sorted({Platform.parse(one) for one in check.texts(value)}))


_REGISTRY: Final[Mapping[str, Callable[[Any], Any]]] = {
    "kind": check.one_of(REGISTRY_KINDS),
    "port": check.number(1, 65535),
    "anonymous_read": check.boolean,
    "retention_seconds": check.number(0, _LONGEST_RETENTION),
}
_RUNTIMES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "names": check.some_of(RUNTIME_NAMES),
    "registries": check.hosts,
    "fallback": check.boolean,
}
_CONFIG: Final[Mapping[str, Callable[[Any], Any]]] = {
    "schedule": lambda value: check_schedule(text(value)),
    "timezone": _zone,
    "sync_windows": _windows,
    "bytes_per_second": check.size(1024),
    "daily_bytes": check.size(0),
    "monthly_bytes": check.size(0),
    "platforms": _platforms,
    "image_workers": check.number(1, 64),
    "blob_workers": check.number(1, 64),
    "poll_interval_seconds": check.number(1, _DAY),
    "report_interval_seconds": check.number(1, _DAY),
    "disk_reserve_bytes": check.size(0),
    "registry": lambda value: _strict(RegistrySettings, value, _REGISTRY),
    "runtimes": lambda value: _strict(RuntimeSettings, value, _RUNTIMES),
}
_PARTS: Final[Mapping[str, Callable[[Any], tuple[Any, tuple[str, ...]]]]] = {
    "registry": lambda value: _lenient(RegistrySettings, value, _REGISTRY),
    "runtimes": lambda value: _lenient(RuntimeSettings, value, _RUNTIMES),
}
FIELDS: Final = tuple(_CONFIG)
"""The names of all fields of a config."""


def parse_config(document: Any, what: str) -> SatelliteConfig:
    """Read a config that somebody at hand has written; null stands for a field that is left out.

    Args:
        document: a JSON object.
        what: the name to use in messages, such as ``config night``.

    Raises:
        InvalidInputError: an unknown field, a wrong value or what looks like a secret; the message names the field.
    """
    refuse_secrets(document, what)
    try:
        return _strict(SatelliteConfig, document, _CONFIG)
    except InvalidInputError as error:
        raise InvalidInputError(f"{what}: {error}") from error


def read_config(document: Any) -> tuple[SatelliteConfig, tuple[str, ...]]:
    """Read a config that a centre has published, which may be newer than this program.

    Returns:
        What is understood of it, and a sentence about each field that is not, with the field's name.
    """
    return _lenient(SatelliteConfig, document, _CONFIG)


def config_json(config: SatelliteConfig) -> dict[str, object]:
    """Write a config as a JSON object, without the fields that are left out, always in the same order."""
    return {
        field.name: _value_json(value) for field in fields(config) if (value := getattr(config, field.name)) is not None
    }


def merge_configs(*configs: SatelliteConfig) -> SatelliteConfig:
    """Lay configs over each other: the last one that says a field holds, within ``registry`` and ``runtimes`` too."""
    merged = SatelliteConfig()
    for config in configs:
        merged = _merged(merged, config)
    return merged


def _merged(below: _Part, above: _Part) -> _Part:
    changes: dict[str, Any] = {}
    for field in fields(above):
        value, held = getattr(above, field.name), getattr(below, field.name)
        if isinstance(value, RegistrySettings | RuntimeSettings) and held is not None:
            changes[field.name] = _merged(held, value)
        elif value is not None:
            changes[field.name] = value
    return replace(below, **changes)


def _strict(kind: type[_Part], document: Any, parsers: Mapping[str, Callable[[Any], Any]]) -> _Part:
    found: dict[str, Any] = {}
    for name, value in _object(document).items():
        if name not in parsers:
            near = difflib.get_close_matches(name, parsers, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(parsers)}"
            raise InvalidInputError(f"no field {name[:100]!r}: {hint}")
        if value is not None:
            found[name] = _named(name, value, parsers[name])
    return kind(**found)


def _lenient(
    kind: type[_Part], document: Any, parsers: Mapping[str, Callable[[Any], Any]]
) -> tuple[_Part, tuple[str, ...]]:
    found: dict[str, Any] = {}
    problems: list[str] = []
    try:
        items = _object(document).items()
    except InvalidInputError as error:
        return kind(), (str(error),)
    for name, value in items:
        if name not in parsers:
            problems.append(f"{name[:100]}: not known here")
        elif value is not None and kind is SatelliteConfig and name in _PARTS:
            found[name], within = _PARTS[name](value)
            problems += [f"{name}.{problem}" for problem in within]
        elif value is not None:
            try:
                found[name] = _named(name, value, parsers[name])
            except InvalidInputError as error:
                problems.append(str(error))
    return kind(**found), tuple(problems)


def _named(name: str, value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error}") from error


def _object(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise InvalidInputError(f"not a JSON object: {shown(document)}")
    return document


def _value_json(value: Any) -> object:
    if isinstance(value, RegistrySettings | RuntimeSettings):
        return {
            field.name: _value_json(part) for field in fields(value) if (part := getattr(value, field.name)) is not None
        }
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return value
