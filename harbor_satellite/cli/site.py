"""``harbor-satellite edge registry|user``: the local registry alone, and its users."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harbor_satellite.errors import InvalidInputError


def registry(
    root: Annotated[Path, typer.Option(help="Folder of the OCI image layouts; made if missing.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:8585",
    htpasswd: Annotated[
        Path | None, typer.Option(help="bcrypt htpasswd file of who may write; without it nobody may.")
    ] = None,
    writer: Annotated[
        list[str] | None, typer.Option(help="User who may write; repeatable. Without: every user of the file.")
    ] = None,
    authenticated_read: Annotated[
        bool, typer.Option("--authenticated-read", help="Pulls, too, need a user of the htpasswd file.")
    ] = False,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM: speak TLS with this certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM: the certificate's key, without a passphrase.")] = None,
    retention_seconds: Annotated[
        float | None, typer.Option(help="How long a manifest without a tag is kept. Without: a week.", min=0)
    ] = None,
) -> None:
    """Serve the embedded registry alone, until SIGTERM."""
    # Each command its own imports.
    from harbor_satellite.registry.server import UNTAGGED_AGE_SECONDS, run_registry_server  # noqa: PLC0415
    from harbor_satellite.registry.server_process import KeyPair  # noqa: PLC0415

    if bool(tls_certificate) != bool(tls_key):
        raise InvalidInputError("--tls-certificate and --tls-key go together")
    if htpasswd:
        warn_of_writers(htpasswd, writer or [])
    run_registry_server(
        root,
        listen,
        htpasswd,
        anonymous_read=not authenticated_read,
        writers=writer or None,
        key_pair=KeyPair(tls_certificate, tls_key) if tls_certificate and tls_key else None,
        untagged_age_seconds=UNTAGGED_AGE_SECONDS if retention_seconds is None else retention_seconds,
    )


def warn_of_writers(htpasswd: Path, writers: list[str]) -> None:
    """Say before serving that nobody can write, while somebody looks; the file may be filled later."""
    try:
        lines = [line.strip() for line in htpasswd.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        typer.echo(f"warning: nobody can write: cannot read {htpasswd}: {error.strerror}", err=True)
        return
    users = {line.partition(":")[0] for line in lines if line and not line.startswith("#")}
    if not users:
        typer.echo(f"warning: nobody can write: no user in {htpasswd}; `edge user` adds one", err=True)
    for unknown in (name for name in writers if users and name not in users):
        typer.echo(f"warning: {unknown} cannot write: no such user in {htpasswd}", err=True)


def user(
    name: Annotated[str, typer.Argument(help="Name of the user.")],
    htpasswd: Annotated[Path, typer.Option(help="bcrypt htpasswd file; made if missing.")],
    delete: Annotated[bool, typer.Option("--delete", help="Remove the user.")] = False,
) -> None:
    """Add a user of a registry's htpasswd file, or give one a new password; it is asked for, or read from a pipe."""
    from harbor_satellite.registry.htpasswd import remove_user, set_password  # noqa: PLC0415

    if delete:
        typer.echo(f"removed {name}" if remove_user(htpasswd, name) else f"{name} was not there")
        return
    is_terminal = sys.stdin.isatty()
    password = (
        typer.prompt("Password", hide_input=True, confirmation_prompt=True) if is_terminal else sys.stdin.readline()
    )
    set_password(htpasswd, name, password.rstrip("\n"))
    typer.echo(f"{name} is a user of {htpasswd}")
