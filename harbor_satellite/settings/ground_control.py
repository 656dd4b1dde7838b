"""Settings of the central processes: Ground Control and the central worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from harbor_satellite.errors import InvalidInputError

_SECRETS_DIR: Final = "HARBOR_SATELLITE_GROUND_CONTROL_SECRETS_DIR"


class GroundControlSettings(BaseSettings):
    """Settings of the central processes: Ground Control and the central worker.

    From the environment, and below it from files: ``HARBOR_SATELLITE_GROUND_CONTROL_SECRETS_DIR`` names a folder, in
    which a file is called as a variable is and holds its value.
    """

    model_config = SettingsConfigDict(
        env_prefix="HARBOR_SATELLITE_GROUND_CONTROL_", extra="ignore", populate_by_name=True
    )

    def __init__(self, **values: Any) -> None:
        folder = values.setdefault("_secrets_dir", os.environ.get(_SECRETS_DIR) or None)
        if folder is not None and not Path(folder).is_dir():
            raise InvalidInputError(f"there is no folder {folder}, which {_SECRETS_DIR} names")
        try:
            super().__init__(**values)
        except OSError as error:
            place = error.filename or folder
            raise InvalidInputError(f"cannot read {place} as user {os.geteuid()}: {error.strerror}") from error
        except SettingsError as error:  # its message has no value in it
            raise InvalidInputError(f"{error}: is it text in UTF-8?") from error

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
