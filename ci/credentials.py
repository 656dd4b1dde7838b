"""Secrets that the user gives: by environment variables or files, never by the command line.

They are handed on to Dagger as secrets only; what is printed shows none of them.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ci.errors import UsageError
from ci.references import DOCKER_HUB
from ci.signing import IDENTITY_VARIABLES, PASSWORD_VARIABLE, PRIVATE_KEY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
_LOGIN_VARIABLES: Final = (
    "REGISTRY_USERNAME",
    "REGISTRY_USERNAME_FILE",
    "REGISTRY_PASSWORD",
    "REGISTRY_PASSWORD_FILE",
)


@dataclass(frozen=True)
class Secret:
    """A value that is not printed."""

    value: str = field(repr=False)


@dataclass(frozen=True)
class Login:
    """Who pushes to a registry."""

    username: str
    password: Secret


def read_secret(environment: Mapping[str, str], variable: str) -> Secret | None:
    """Return the value of a variable, or of the file that VARIABLE_FILE names; None where neither is set.

    Of a file the line's end is dropped, which editors and secret stores add.

    Raises:
        UsageError: the file cannot be read or is empty.
    """
    if value := environment.get(variable):
        return Secret(value)
    if not (name := environment.get(f"{variable}_FILE")):
        return None
    try:
        value = Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{variable}_FILE={name}: cannot be read: {error}") from error
    if not value:
        raise UsageError(f"{variable}_FILE={name}: is empty")
    return Secret(value)


def signing_secrets(environment: Mapping[str, str], *, is_keyless: bool) -> dict[str, Secret]:
    """Return variable → value of what cosign needs to sign.

    Raises:
        UsageError: it is not there.
    """
    if is_keyless:
        given = {name: read_secret(environment, name) for name in IDENTITY_VARIABLES}
        if found := {name: secret for name, secret in given.items() if secret is not None}:
            return found
        raise UsageError(f"to sign without a key the CI must give an identity: one of {', '.join(IDENTITY_VARIABLES)}")
    key = read_secret(environment, PRIVATE_KEY_VARIABLE)
    if key is None:
        raise UsageError(
            f"to sign, {PRIVATE_KEY_VARIABLE} must hold the private key (or {PRIVATE_KEY_VARIABLE}_FILE name its file) "
            f"and {PASSWORD_VARIABLE} its password: cosign generate-key-pair makes both"
        )
    return {
        PRIVATE_KEY_VARIABLE: key,
        PASSWORD_VARIABLE: read_secret(environment, PASSWORD_VARIABLE) or Secret(""),
    }


def registry_logins(
    environment: Mapping[str, str], registries: Iterable[str], docker_config: Path | None
) -> dict[str, Login]:
    """Return registry → who pushes there, where somebody is known; see `registry_login`.

    Raises:
        UsageError: there are several registries, and the variables do not say whose login they hold.
    """
    names = sorted(set(registries))
    if len({config_key(name) for name in names}) > 1 and any(environment.get(name) for name in _LOGIN_VARIABLES):
        raise UsageError(
            f"REGISTRY_USERNAME and REGISTRY_PASSWORD are for one registry, but named are {', '.join(names)}: "
            "give the logins with --docker-config"
        )
    found = {name: registry_login(environment, name, docker_config) for name in names}
    return {name: login for name, login in found.items() if login is not None}


def config_key(registry: str) -> str:
    """Return how a Docker configuration calls a registry: by its host and port, but for Docker Hub."""
    return _DOCKER_HUB_KEY if registry in DOCKER_HUB else registry


def registry_login(environment: Mapping[str, str], registry: str, docker_config: Path | None) -> Login | None:
    """Return who pushes to a registry; None: nobody in particular.

    Args:
        environment: REGISTRY_USERNAME and REGISTRY_PASSWORD (or either with _FILE) come first.
        registry: host and port.
        docker_config: a file such as ~/.docker/config.json.

    Raises:
        UsageError: one of the two is missing, or the file is malformed or names the registry without a password.
    """
    username, password = read_secret(environment, "REGISTRY_USERNAME"), read_secret(environment, "REGISTRY_PASSWORD")
    if username and password:
        return Login(username.value, password)
    if username or password:
        raise UsageError("REGISTRY_USERNAME and REGISTRY_PASSWORD (or either with _FILE) belong together")
    if docker_config is None:
        return None
    try:
        return _from_docker_config(docker_config.read_text(encoding="utf-8"), registry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # The error's own words might cite the file.
        raise UsageError(
            f"{docker_config}: no login for {registry} can be read in it ({type(error).__name__})"
        ) from None


def docker_config_text(logins: Mapping[str, Login]) -> Secret:
    """Return a Docker configuration with these logins, for the tools that run in containers."""
    auths = {
        # By its own name too: not every tool knows all names of Docker Hub.
        key: {"auth": base64.b64encode(f"{login.username}:{login.password.value}".encode()).decode()}
        for registry, login in logins.items()
        for key in (config_key(registry), registry)
    }
    return Secret(json.dumps({"auths": auths}))


def _from_docker_config(text: str, registry: str) -> Login | None:
    config = json.loads(text)
    keys = dict.fromkeys((config_key(registry), registry))
    auths, helpers = config.get("auths", {}), config.get("credHelpers", {})
    entry = next((auths[key] for key in keys if auths.get(key, {}).get("auth")), None)
    helper = next((helpers[key] for key in keys if helpers.get(key)), config.get("credsStore"))
    if entry is None:
        if helper:
            raise UsageError(
                f"the password for {registry} is kept by the credential helper {helper}, which containers do not have: "
                "set REGISTRY_USERNAME and REGISTRY_PASSWORD"
            )
        return None
    try:
        username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except binascii.Error as error:
        raise ValueError from error
    return Login(username, Secret(password))
