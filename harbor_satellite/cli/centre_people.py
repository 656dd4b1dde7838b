"""``harbor-satellite ground-control create-admin``: people, from the machine that holds the database."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from pydantic import SecretStr

from harbor_satellite.settings import GroundControlSettings


def create_admin(
    username: Annotated[str, typer.Option(help="Name; admin is the system administrator.")] = "admin",
    role: Annotated[str, typer.Option(help="Of anybody but admin: admin or operator.")] = "admin",
    reset: Annotated[
        bool, typer.Option(help="Set the password of a user that is there; ends sessions, tokens and a lock.")
    ] = False,
) -> None:
    """Make a person who may call the API, or set a person's password, without the API.

    The password is asked for, or read from standard input: one line.
    """
    # Half a second of imports.
    from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate  # noqa: PLC0415
    from harbor_satellite.ground_control.people.console import set_up_person  # noqa: PLC0415

    settings = GroundControlSettings()
    password = _read_password()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    migrate(settings.database())
    engine = make_engine(settings.database())
    try:
        with make_session_factory(engine).begin() as session:
            done = set_up_person(session, username, password, role=role, is_reset=reset)
    finally:
        engine.dispose()
    typer.echo(done)


def _read_password() -> SecretStr:
    if sys.stdin.isatty():
        return SecretStr(typer.prompt("password", hide_input=True, confirmation_prompt=True))
    return SecretStr(sys.stdin.readline().rstrip("\r\n"))
