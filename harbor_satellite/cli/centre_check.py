"""``harbor-satellite ground-control check``: is everything there that Ground Control needs?"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harbor_satellite.cli.fleet_tables import cell
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.settings import GroundControlSettings

if TYPE_CHECKING:
    from harbor_satellite.ground_control.checks import Check

_PREFIX = "HARBOR_SATELLITE_GROUND_CONTROL_"


def check(
    output: Annotated[Literal["table", "json"], typer.Option(help="How to say what was found.")] = "table",
) -> None:
    """Say what Ground Control needs and does not have, and what to do about it; exit 1 if something is missing.

    Nothing is changed, neither here nor at Harbor. It reads the same settings as `serve`.
    """
    from harbor_satellite.ground_control.checks import is_complete  # noqa: PLC0415  (half a second of imports)

    found = _look(GroundControlSettings())
    if output == "json":
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        for one in found:
            typer.echo(f"{one.outcome:<8} {one.name}: {cell(one.detail)}")
            if one.advice:
                typer.echo(f"{'':<8} → {one.advice}")
    if not is_complete(found):
        raise typer.Exit(1)


def _look(settings: GroundControlSettings) -> list[Check]:
    from harbor_satellite.ground_control.checks import (  # noqa: PLC0415
        check_address,
        check_database,
        check_prefect,
        check_signing,
    )

    return [
        *_source(settings),
        check_database(settings.database()),
        *check_prefect(os.environ.get("PREFECT_API_URL", ""), settings.prefect_auth_string, lambda: datetime.now(UTC)),
        check_signing(settings.signing_key, lambda: _public_key(settings)),
        check_address(
            "address of the source",
            settings.source_public_url or settings.source_url,
            f"{_PREFIX}SOURCE_PUBLIC_URL",
            is_given=bool(settings.source_public_url),
        ),
        check_address(
            "address of ground control", settings.public_url, f"{_PREFIX}PUBLIC_URL", is_given=bool(settings.public_url)
        ),
    ]


def _source(settings: GroundControlSettings) -> list[Check]:
    from harbor_satellite.ground_control.checks import Check, Outcome, check_registry  # noqa: PLC0415
    from harbor_satellite.ground_control.harbor_checks import check_harbor  # noqa: PLC0415
    from harbor_satellite.harbor.client import HarborClient  # noqa: PLC0415
    from harbor_satellite.registry.auth import Credentials  # noqa: PLC0415
    from harbor_satellite.registry.client import HttpRegistry  # noqa: PLC0415
    from harbor_satellite.registry.tls import tls_context  # noqa: PLC0415

    url, username, password = settings.source_url, settings.source_username, settings.source_password
    verify = str(settings.source_ca) if settings.source_ca else True
    try:
        if settings.source_kind == "harbor":
            with HarborClient(url, username, password, verify=tls_context(verify)) as client:
                return check_harbor(client, username, lambda: datetime.now(UTC))
        credentials = Credentials(username, password) if username else None
        with HttpRegistry(url, credentials=credentials, verify=verify) as registry:
            return [check_registry(registry, url)]
    except InvalidInputError as error:
        return [Check("source", Outcome.MISSING, str(error), f"correct {_PREFIX}SOURCE_URL or …_CA")]


def _public_key(settings: GroundControlSettings) -> str:
    from harbor_satellite.registry.cosign import Cosign  # noqa: PLC0415

    assert settings.signing_key is not None  # noqa: S101  (it is asked for only then)
    return Cosign(settings.cosign).public_key(settings.signing_key, settings.signing_key_password)
