"""Process settings, read from the environment once, at the edge of each process.

Libraries never read these: they are given plain values. Every variable starts with
``HARBOR_SATELLITE_``; Ground Control's continue with ``GROUND_CONTROL_``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.inputs import LOCAL_VARIABLES, parse_size, refuse_user
from harbor_satellite.oci.platform import Platform
from harbor_satellite.satellite.options import DEFAULT_RESERVE_BYTES, ReplicationOptions, WanLimits
from harbor_satellite.state.policy import KEY_MAX_LENGTH, parse_key

if TYPE_CHECKING:
    from harbor_satellite.state.config import SatelliteConfig


class GroundControlSettings(BaseSettings):
    """Settings of the central processes: Ground Control and the central worker."""

    model_config = SettingsConfigDict(
        env_prefix="HARBOR_SATELLITE_GROUND_CONTROL_", extra="ignore", populate_by_name=True
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """TCP port; the original's."""
    public_url: str = ""
    """This service as the sites reach it, such as ``https://ground-control.example.com``; empty: host and port."""
    database_url: SecretStr = SecretStr("")
    """``postgresql://…``; empty: an SQLite file in ``data_dir``."""
    data_dir: Path = Path("harbor-satellite-data")
    """Where the SQLite file goes when no URL is set."""
    admin_password: SecretStr = SecretStr("")
    """Password of the first ``admin``; needed at the first start only."""
    metrics_token: SecretStr | None = Field(default=None, min_length=16)
    """Bearer token of a scraper that reads ``/metrics``; None: only people may."""
    token_ttl_seconds: int = Field(default=24 * 3600, ge=1)
    """How long a one-time token is good for; the original's day."""
    source_kind: Literal["harbor", "oci"] = "harbor"
    """What the central registry is."""
    source_url: str = "http://127.0.0.1:5000"
    """The central registry as the centre reaches it."""
    source_public_url: str = ""
    """The central registry as the sites reach it; empty: the same."""
    source_username: str = ""
    """Who pushes states and, at a Harbor, makes robot accounts."""
    source_password: SecretStr = SecretStr("")
    source_ca: Path | None = None
    """CA bundle of the central registry; None: the system's."""
    source_htpasswd: Path | None = None
    """Source kind ``oci``: file in which Ground Control keeps the satellites' credentials for that registry."""
    robot_duration_days: int = Field(default=30, ge=1)
    """Source kind ``harbor``: life of a robot account; the original's month."""
    renewal_before_days: int | None = Field(default=None, ge=1)
    """How long before its end a credential is renewed; None: a third of its life, three days at least."""
    renewal_grace_days: int = Field(default=90, ge=0)
    """How long after its end a credential may still ask for the next one: a site may be away for weeks."""
    superseded_grace_seconds: int = Field(default=3600, ge=0)
    """How long a credential is kept at the source once the next one is used: runs under way may still have it."""
    run_retention_days: int = Field(default=7, ge=1)
    """How long Prefect keeps the satellites' runs after their end."""
    audit_retention_days: int = Field(default=365, ge=1)
    """How long events of the audit log are kept."""
    prefect_public_url: str = ""
    """A Prefect API that sites reach past the gateway, with no check of whose runs are whose; empty: the gateway."""
    prefect_auth_string: SecretStr | None = Field(default=None, validation_alias="PREFECT_API_AUTH_STRING")
    """``user:password`` of the Prefect API, in Prefect's own variable; stays at the centre."""
    signing_key: Path | None = None
    """Private key of cosign (``cosign.key``) that signs every state; None: states are not signed."""
    signing_key_password: SecretStr = SecretStr("")
    cosign: str = "cosign"
    """The program that signs: a name on PATH, or a path."""
    audit_log_file: str = ""
    """Where changes go as JSON lines: a path, or ``-`` for standard output; empty: with all other messages."""

    @field_validator("source_url", "source_public_url", "prefect_public_url", "public_url")
    @classmethod
    def _holds_no_secret(cls, url: str) -> str:
        if "@" in url.split("://", 1)[-1].partition("/")[0]:
            raise ValueError("user and password have variables of their own; a URL is shown in messages and to sites")
        return url

    @field_validator("signing_key", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    def database(self) -> str:
        """Return the database URL, or that of the SQLite file."""
        url = self.database_url.get_secret_value()
        return url or f"sqlite:///{self.data_dir.resolve() / 'ground-control.sqlite'}"


_CAPS: Final = ("bytes_per_second", "daily_bytes", "monthly_bytes")
_FROM_CONFIG: Final = (
    *_CAPS,
    "timezone",
    "sync_windows",
    "platforms",
    "image_workers",
    "blob_workers",
    "poll_interval_seconds",
    "disk_reserve_bytes",
)


def _size(value: object) -> object:
    try:
        return parse_size(value.strip()) if isinstance(value, str) else value
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


Size = Annotated[int, BeforeValidator(_size)]
"""A count of bytes, which may be written as ``5M``, ``2G`` or ``1Gi``."""


class SatelliteSettings(BaseSettings):
    """Settings of the processes at a site."""

    model_config = SettingsConfigDict(env_prefix="HARBOR_SATELLITE_", extra="ignore")

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
    local_registry_url: str = "http://127.0.0.1:8585"
    """The site's own registry; the original's port."""
    local_registry_username: str = ""
    local_registry_password: SecretStr = SecretStr("")
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

    @field_validator("platforms", "image_keys", "state_keys", mode="before")
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
