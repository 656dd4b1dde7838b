"""``harbor-satellite fleet login|logout``: a session, kept for the commands to come."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from pydantic import SecretStr

from harbor_satellite.cli.fleet_session import Connection, forget_login, path_of, read_login, save_login
from harbor_satellite.errors import HarborSatelliteError, UntrustedDataError


def login(
    ctx: typer.Context,
    user: Annotated[str, typer.Option(help="Name of the user.")] = "admin",
) -> None:
    """Exchange a name and a password for a session; the password is asked for, or read from a pipe."""
    connection: Connection = ctx.obj
    is_terminal = sys.stdin.isatty()
    password = typer.prompt("Password", hide_input=True) if is_terminal else sys.stdin.readline().rstrip("\n")
    with connection.nobody() as api:
        answer = api.request("POST", "/login", body={"username": user, "password": password})
        token = answer.get("token") if isinstance(answer, dict) else None
        if not token:
            raise UntrustedDataError(f"{api.url} answered a login without a token: is it Ground Control?")
        path = save_login(api.url, SecretStr(str(token)))
        typer.echo(f"logged in at {api.url} as {user} until {answer.get('expires_at', '?')}; kept in {path}")


def logout(ctx: typer.Context) -> None:
    """End the session that is kept, at Ground Control and here."""
    kept = read_login()
    if not kept.get("token"):
        typer.echo("nobody was logged in")
        return
    given: Connection = ctx.obj
    connection = Connection(str(kept["url"]), None, given.ca)
    try:
        with connection.open(SecretStr(str(kept["token"]))) as api:
            api.request("POST", path_of("logout"))
    except HarborSatelliteError as error:  # it ends by itself; what is kept here is what matters
        typer.echo(f"not ended at {kept['url']}: {error}", err=True)
    forget_login()
    typer.echo(f"logged out of {kept['url']}")
