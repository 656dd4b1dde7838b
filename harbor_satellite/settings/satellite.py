"""Settings of the processes at a site, and how a config of the centre is weighed against them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.inputs import LOCAL_VARIABLES, parse_size, refuse_user
from harbor_satellite.oci.platform import Platform
from harbor_satellite.satellite.options import DEFAULT_RESERVE_BYTES, ReplicationOptions, WanLimits
from harbor_satellite.state.cron import check_schedule
from harbor_satellite.state.policy import KEY_MAX_LENGTH, parse_key

if TYPE_CHECKING:
    from harbor_satellite.state.config import SatelliteConfig


_CAPS: Final = ("bytes_per_second", "daily_bytes", "monthly_bytes")
_FROM_CONFIG: Final = (
    *_CAPS,
    "schedule",
    "timezone",
    "sync_windows",
    "platforms",
    "image_workers",
    "blob_workers",
    "poll_interval_seconds",
    "report_interval_seconds",
    "disk_reserve_bytes",
)
_FROM_REGISTRY: Final = {
    "kind": "registry_kind",
    "anonymous_read": "registry_anonymous_read",
    "retention_seconds": "registry_retention_seconds",
}
_FROM_RUNTIMES: Final = {"names": "runtimes", "registries": "mirrored_registries", "fallback": "runtime_fallback"}
_ENV_FILE: Final = "HARBOR_SATELLITE_ENV_FILE"
_DEFAULT_ENV_FILE: Final = "/etc/harbor-satellite/satellite.env"


def env_file() -> Path | None:
    """Return the file of settings that is read below the environment, whether it is there or not; None: none is."""
    name = os.environ.get(_ENV_FILE, _DEFAULT_ENV_FILE)
    return Path(name) if name else None


def _size(value: object) -> object:
    try:
        return parse_size(value.strip()) if isinstance(value, str) else value
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


Size = Annotated[int, BeforeValidator(_size)]
"""A count of bytes, which may be written as ``5M``, ``2G`` or ``1Gi``."""


class SatelliteSettings(BaseSettings):
    """Settings of the processes at a site.

    From the environment, and below it from a file of ``NAME=value`` lines, which ``HARBOR_SATELLITE_ENV_FILE`` names.
    The file is read anew by every run: what is changed there holds without a restart.
    """

    model_config = SettingsConfigDict(env_prefix="HARBOR_SATELLITE_", extra="ignore")

    def __init__(self, **values: Any) -> None:
        file = values.setdefault("_env_file", env_file())
        try:
            super().__init__(**values)
        except OSError as error:
            raise InvalidInputError(f"cannot read {file} as user {os.geteuid()}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{file} is no text in UTF-8") from error

    data_dir: Path = Path("/var/lib/harbor-satellite")
    """Credentials, applied state and records; 0700."""
    ground_control_url: str = ""
    """Where to register and report."""
    token: SecretStr = SecretStr("")
    """The one-time token; better given by ``token_file``."""
    token_file: Path | None = None
    """File that holds the one-time token."""
    ca: Path | None = None
    """CA bundle for Ground Control and the central registry; None: the system's."""
    source_username: str = ""
    """``edge sync`` without registration: who pulls from the source; empty: nobody in particular."""
    source_password: SecretStr = SecretStr("")
    registration_file: Path = Path("/etc/harbor-satellite/registration.json")
    """``{"ground_control_url": …, "token": …}``, dropped on a disk image; removed once the site is registered."""
    is_encrypted: bool = Field(default=False, validation_alias="HARBOR_SATELLITE_ENCRYPT_CREDENTIALS")
    """Whether credentials on disk are encrypted with a key that is bound to this machine."""
    registry_kind: Literal["auto", "embedded", "zot", "external"] = "auto"
    """Who serves the local registry; ``auto``: ``external`` where its URL is set, else Zot if there is one."""
    registry_listen: str = "127.0.0.1:8585"
    """``HOST:PORT`` of a local registry that the agent runs; the original's port."""
    registry_root: Path | None = None
    """Where it keeps its blobs; None: a folder of its kind in ``data_dir``."""
    registry_anonymous_read: bool = True
    """Whether containers may be pulled without a user."""
    registry_retention_seconds: int = Field(default=48 * 3600, ge=0)
    """How long content that nothing names is kept: longer than the slowest replication takes."""
    registry_tls_certificate: Path | None = None
    """PEM; with ``registry_tls_key`` the registry speaks TLS, and so may listen beyond the loopback."""
    registry_tls_key: Path | None = None
    registry_is_open: bool = False
    """Whether it may listen beyond the loopback without TLS."""
    on_demand_registries: Annotated[tuple[str, ...], NoDecode] = ()
    """URLs, separated by commas, from which Zot itself fetches what it lacks; empty: the runtimes' own fallback."""
    zot: str = "zot"
    """The program: a name on PATH, or a path."""
    local_registry_url: str = "http://127.0.0.1:8585"
    """The local registry where somebody else runs it; else ``edge.site.with_local_registry`` fills this in."""
    local_registry_username: str = ""
    local_registry_password: SecretStr = SecretStr("")
    local_registry_ca: Path | None = None
    """CA bundle of the local registry; None: the system's."""
    runtimes: Annotated[tuple[str, ...], NoDecode] = ()
    """Container runtimes to point at the local registry, separated by commas; empty: none by itself."""
    mirrored_registries: Annotated[tuple[str, ...], NoDecode] = ("docker.io",)
    """``host[:port]``, separated by commas: registries that the local one stands in for."""
    runtime_fallback: bool = True
    """Whether a runtime asks the registry itself for what the local one lacks."""
    host_root: Path = Path("/")
    """Where the root of the runtimes' host is seen, such as ``/host`` in a container that has it mounted there."""
    schedule: str = ""
    """5-field cron, in ``timezone``; empty: the centre's."""
    jitter_seconds: int | None = Field(default=None, ge=0)
    """Scheduled runs start up to so much later, each site at its own moment; None: a tenth of the interval, 300 s at
    most."""
    report_interval_seconds: int = Field(default=600, ge=1)
    """How often the site reports when nothing happens."""
    status_listen: str = "127.0.0.1:8586"
    """``HOST:PORT`` of the status page, health and metrics; empty: none."""
    image_workers: int = Field(default=4, ge=1, le=64)
    """Images on their way at once."""
    blob_workers: int = Field(default=8, ge=1, le=64)
    """Blobs of all images on their way at once."""
    platforms: Annotated[tuple[str, ...], NoDecode] = ()
    """``os/architecture[/variant]``, separated by commas: children of indexes to bring; empty: all."""
    timezone: str = "UTC"
    """IANA name of the site's time zone: of sync windows, days and months."""
    sync_windows: Annotated[tuple[str, ...], NoDecode] = ()
    """When bytes may move, separated by semicolons, such as ``Mon-Fri 22:00-06:00; Sat,Sun``; empty: always."""
    bytes_per_second: Size | None = Field(default=None, ge=1024)
    """How fast the source is read at most; None: as fast as it goes."""
    daily_bytes: Size | None = Field(default=None, ge=0)
    """Cap on what is read from the source in a day; None: none."""
    monthly_bytes: Size | None = Field(default=None, ge=0)
    """Cap on what is read from the source in a month; None: none."""
    storage: Path | None = None
    """A folder on the disk that the local registry fills; None: ``data_dir``."""
    disk_reserve_bytes: Size = Field(default=DEFAULT_RESERVE_BYTES, ge=0)
    """Free bytes of that disk that a replication never touches."""
    image_keys: Annotated[tuple[Path, ...], NoDecode] = ()
    """Files with cosign public keys, separated by commas: one must have signed every image; empty: nobody must."""
    state_keys: Annotated[tuple[Path, ...], NoDecode] = ()
    """Files with cosign public keys, separated by commas: one must have signed the states; empty: nobody must."""
    cosign: str = "cosign"
    """The program that checks signatures: a name on PATH, or a path."""
    poll_interval_seconds: float = Field(default=60.0, gt=0)
    """How often the edge worker asks Prefect for runs; also its prefetch and heartbeat."""

    audit_budget_bytes: Size = Field(default=2 * 1024**3, ge=1)
    """Bytes of blobs that one scheduled audit reads; the next one goes on there."""
    audit_bytes_per_second: Size | None = Field(default=None, ge=1024)
    """How fast an audit reads the local registry at most; None: as fast as it goes."""

    @field_validator(
        "platforms",
        "image_keys",
        "state_keys",
        "on_demand_registries",
        "runtimes",
        "mirrored_registries",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return _parts(value, ",")

    @field_validator("sync_windows", mode="before")
    @classmethod
    def _split_windows(cls, value: object) -> object:
        return _parts(value, ";")  # a window may list days by commas

    @field_validator("local_registry_url")
    @classmethod
    def _local_registry_has_no_user(cls, url: str) -> str:
        return _without_user(url, f"say {LOCAL_VARIABLES}")

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, schedule: str) -> str:
        try:
            return check_schedule(schedule) if schedule else ""
        except InvalidInputError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _registry_is_whose(self) -> Self:
        if self.registry_kind == "auto" and "local_registry_url" in self.model_fields_set:
            self.registry_kind = "external"
        return self

    @field_validator("ground_control_url")
    @classmethod
    def _ground_control_has_no_user(cls, url: str) -> str:
        return _without_user(url, "a site needs no more than its one-time token")

    def replication_options(self, *, is_deep: bool = False, is_asked_for: bool = False) -> ReplicationOptions:
        """Return how this site replicates.

        Raises:
            InvalidInputError: a platform, the file of a key or the folder of the storage is not what it should be.
        """
        if self.storage and not self.storage.is_dir():
            raise InvalidInputError(f"HARBOR_SATELLITE_STORAGE: no such folder: {self.storage}")
        return ReplicationOptions(
            image_workers=self.image_workers,
            blob_workers=self.blob_workers,
            platforms=tuple(sorted({Platform.parse(one) for one in self.platforms})),
            is_deep=is_deep,
            is_asked_for=is_asked_for,
            image_keys=_read_keys(self.image_keys),
            state_keys=_read_keys(self.state_keys),
            cosign=self.cosign,
            wan=self.wan_limits(),
            storage=self.storage,
            disk_reserve_bytes=self.disk_reserve_bytes,
        )

    def with_config(self, config: SatelliteConfig) -> SatelliteSettings:
        """Return the settings with what the centre's config says.

        The config stands above defaults, and what is set here, in the site's environment, above the config: whoever
        runs a site has the last word. Caps and the rate are the exception: of two, the lower one holds, so a site
        can be held back from either side and nothing raises what was set here.

        To be asked once: what comes of it counts as set here.
        """
        changes: dict[str, object] = {}
        for name in _FROM_CONFIG:
            said, own = getattr(config, name), getattr(self, name)
            if said is None or (name in self.model_fields_set and name not in _CAPS):
                continue
            changes[name] = said if name not in _CAPS or own is None else min(said, own)
        if "platforms" in changes:
            changes["platforms"] = tuple(map(str, config.platforms or ()))
        for part, names in ((config.registry, _FROM_REGISTRY), (config.runtimes, _FROM_RUNTIMES)):
            said_by = {name: getattr(part, field, None) for field, name in names.items()}
            changes |= {
                name: said for name, said in said_by.items() if said is not None and name not in self.model_fields_set
            }
        if config.registry and config.registry.port and "registry_listen" not in self.model_fields_set:
            host = self.registry_listen.rpartition(":")[0]
            changes["registry_listen"] = f"{host}:{config.registry.port}"
        return self.model_copy(update=changes)

    def wan_limits(self) -> WanLimits:
        """Return the bounds on the site's link."""
        return WanLimits(self.bytes_per_second, self.daily_bytes, self.monthly_bytes, self.sync_windows, self.timezone)

    def storage_used_bytes(self) -> int:
        """Return the used bytes of the disk that holds the data."""
        return shutil.disk_usage(self.data_dir).used


def _parts(value: object, separator: str) -> object:
    return tuple(part.strip() for part in value.split(separator) if part.strip()) if isinstance(value, str) else value


def _without_user(url: str, advice: str) -> str:
    try:
        return refuse_user(url, "the URL", advice)
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


def _read_keys(paths: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(sorted({_read_key(path) for path in paths}))


def _read_key(path: Path) -> str:
    """Read a public key; no message shows what else the file holds, which may be the private one."""
    try:
        with path.open("rb") as file:
            raw = file.read(KEY_MAX_LENGTH + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read the public key {path}: {error.strerror}") from error
    try:
        return parse_key(raw.decode())
    except (InvalidInputError, ValueError):
        raise InvalidInputError(f"{path} is no public key (PEM); is it the private one?") from None
