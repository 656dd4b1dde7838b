"""``harbor-satellite fleet token|user|audit``: who may call the API, with what, and what they changed."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from harbor_satellite.cli.fleet_session import open_api, path_of
from harbor_satellite.cli.fleet_tables import Output, show_done, show_rows

tokens = typer.Typer(help="Tokens for programs.", no_args_is_help=True, rich_markup_mode=None)
users = typer.Typer(help="People who may call the API.", no_args_is_help=True, rich_markup_mode=None)

_Name = Annotated[str, typer.Argument(help="Name of the token.")]
_User = Annotated[str, typer.Argument(help="Name of the user.")]
_Role = Literal["admin", "operator"]


@tokens.command("list")
def list_tokens(ctx: typer.Context, output: Output = "table") -> None:
    """List one's own API tokens."""
    columns = {"name": "TOKEN", "role": "ROLE", "expires_at": "EXPIRES", "last_used_at": "LAST USED"}
    with open_api(ctx) as api:
        show_rows(api.page(path_of("tokens")).rows, columns, output)


@tokens.command("create")
def create_token(
    ctx: typer.Context,
    name: _Name,
    days: Annotated[int | None, typer.Option(help="How long it is good for.", min=1)] = None,
    role: Annotated[str, typer.Option(help="What it may do at most. Without: what its user may.")] = "",
    output: Output = "table",
) -> None:
    """Make an API token, which is shown this once."""
    body: dict[str, object] = {"name": name}
    body |= {"expires_in_days": days} if days else {}
    body |= {"role": role} if role else {}
    with open_api(ctx) as api:
        answer = api.request("POST", path_of("tokens"), body=body)
    show_done(answer, output, str(answer["token"]))


@tokens.command("revoke")
def revoke_token(ctx: typer.Context, name: _Name, output: Output = "table") -> None:
    """End an API token."""
    with open_api(ctx) as api:
        answer = api.request("DELETE", path_of("tokens", name))
    show_done(answer, output, f"ended token {name}")


@users.command("list")
def list_users(ctx: typer.Context, output: Output = "table") -> None:
    """List admins and operators."""
    columns = {"username": "USER", "role": "ROLE", "created_at": "SINCE"}
    with open_api(ctx) as api:
        show_rows(api.page(path_of("users")).rows, columns, output)


@users.command("create")
def create_user(
    ctx: typer.Context,
    user: _User,
    role: Annotated[_Role, typer.Option(help="operator: reads everything, changes nothing.")] = "operator",
    output: Output = "table",
) -> None:
    """Make a user; the password is asked for, or read from a pipe."""
    body = {"username": user, "password": _password(), "role": role}
    with open_api(ctx) as api:
        answer = api.request("POST", path_of("users"), body=body)
    show_done(answer, output, f"made {role} {user}")


@users.command("role")
def change_role(
    ctx: typer.Context, user: _User, role: Annotated[_Role, typer.Argument(help="What it may do.")]
) -> None:
    """Make an admin an operator, or the reverse."""
    with open_api(ctx) as api:
        api.request("PATCH", path_of("users", user, "role"), body={"role": role})
    typer.echo(f"{user} is {role}")


@users.command("password")
def reset_password(ctx: typer.Context, user: _User) -> None:
    """Set a user's password; it is asked for, or read from a pipe."""
    with open_api(ctx) as api:
        api.request("PATCH", path_of("users", user, "password"), body={"new_password": _password()})
    typer.echo(f"{user} has a new password")


@users.command("delete")
def delete_user(ctx: typer.Context, user: _User, output: Output = "table") -> None:
    """Delete a user, its sessions and tokens."""
    with open_api(ctx) as api:
        answer = api.request("DELETE", path_of("users", user))
    show_done(answer, output, f"deleted user {user}")


def audit(
    ctx: typer.Context,
    resource: Annotated[str, typer.Option(help="Such as group:shops.")] = "",
    actor: Annotated[str, typer.Option(help="Such as user:mara.")] = "",
    action: Annotated[str, typer.Option(help="Such as group.sync.")] = "",
    since: Annotated[str, typer.Option(help="Not before this moment, such as 2026-01-31T09:00:00Z.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    before: Annotated[int | None, typer.Option(help="Older than this id.")] = None,
    output: Output = "table",
) -> None:
    """List who changed what, the newest first."""
    query = {"resource": resource, "actor": actor, "action": action, "since": since, "limit": limit, "before": before}
    with open_api(ctx) as api:
        rows = api.page(path_of("audit"), query).rows
    keys = ("id", "timestamp", "actor", "action", "resource", "outcome", "reason", "changes")
    show_rows(rows, {key: key.upper() for key in keys}, output)


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")
