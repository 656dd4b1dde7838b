"""``harbor-satellite edge …``: what runs at a site."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.platform import Platform
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.htpasswd import remove_user, set_password
from harbor_satellite.registry.server import run_registry_server
from harbor_satellite.satellite.connections import Connections, registry_host
from harbor_satellite.satellite.ground_control_client import GroundControlClient
from harbor_satellite.satellite.registration import read_token
from harbor_satellite.satellite.registration import register as register_site
from harbor_satellite.satellite.state_input import load_states, states_digest
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.satellite.sync import SyncOptions, run_outcome, sync_satellite, sync_states
from harbor_satellite.settings import SatelliteSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import SecretStr

    from harbor_satellite.satellite.outcome import RunOutcome

app = typer.Typer(help="What runs at a site.", no_args_is_help=True, rich_markup_mode=None)

Output = Literal["text", "json"]


@app.command()
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
) -> None:
    """Serve the embedded registry alone, until SIGTERM."""
    run_registry_server(root, listen, htpasswd, anonymous_read=not authenticated_read, writers=writer or None)


@app.command()
def user(
    name: Annotated[str, typer.Argument(help="Name of the user.")],
    htpasswd: Annotated[Path, typer.Option(help="bcrypt htpasswd file; made if missing.")],
    delete: Annotated[bool, typer.Option("--delete", help="Remove the user.")] = False,
) -> None:
    """Add a user of a registry's htpasswd file, or give one a new password; it is asked for, or read from a pipe."""
    if delete:
        typer.echo(f"removed {name}" if remove_user(htpasswd, name) else f"{name} was not there")
        return
    is_terminal = sys.stdin.isatty()
    password = (
        typer.prompt("Password", hide_input=True, confirmation_prompt=True) if is_terminal else sys.stdin.readline()
    )
    set_password(htpasswd, name, password.rstrip("\n"))
    typer.echo(f"{name} is a user of {htpasswd}")


@app.command()
def register(
    ground_control: Annotated[str, typer.Option(help="URL of Ground Control.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the one-time token.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Claim a new token although this site is registered.")] = False,
) -> None:
    """Exchange the one-time token for credentials; safe to repeat.

    The token comes from --token-file or HARBOR_SATELLITE_TOKEN, never from the command line, where `ps` shows it.
    """
    settings = _settings(ground_control, token_file)
    with GroundControlClient(settings.ground_control_url, verify=_verify(settings)) as client:
        store = SatelliteStore(settings.data_dir)
        token = read_token(settings.token, settings.token_file)
        registration = register_site(client, store, token, is_again=again)
    typer.echo(f"registered as {registration.satellite or registration.auth.username}; follows {registration.state}")


@app.command()
def run(
    ground_control: Annotated[str, typer.Option(help="URL of Ground Control.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the one-time token.")] = None,
) -> None:
    """Register if need be, then be this site's edge worker until SIGTERM."""
    from harbor_satellite.edge_agent import run_agent  # noqa: PLC0415  (Prefect takes a second to import)

    run_agent(_settings(ground_control, token_file))


@app.command()
def sync(
    state: Annotated[
        list[str] | None,
        typer.Option(help="File with a state's JSON, or reference of a state; repeatable. Without: the site's own."),
    ] = None,
    target: Annotated[str, typer.Option(help="URL of the local registry.")] = "",
    source: Annotated[str, typer.Option(help="URL of the registry to copy from, whatever the state names.")] = "",
    platform: Annotated[
        list[str] | None, typer.Option(help="os/architecture[/variant] to bring; repeatable. Without: all.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Check every blob of what is there already.")] = False,
    workers: Annotated[int | None, typer.Option(help="Images on their way at once.", min=1, max=64)] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the record of what was copied is kept.")] = None,
    output: Annotated[Output, typer.Option(help="How to say what was done.")] = "text",
) -> None:
    """Replicate once, without Ground Control and without Prefect; the same library path as the flow."""
    settings = SatelliteSettings()
    if data_dir:
        settings = settings.model_copy(update={"data_dir": data_dir})
    if target:
        settings = settings.model_copy(update={"local_registry_url": target})
    platforms = tuple(Platform.parse(item) for item in platform or ())
    with _progress(is_shown=output == "text" and sys.stderr.isatty()) as on_bytes:
        options = SyncOptions(workers or settings.image_workers, platforms, is_deep=deep, on_bytes=on_bytes)
        outcome = _sync_given(settings, tuple(state), source, options) if state else _sync_own(settings, options)
    _show(outcome, output)
    if not outcome.is_converged:
        raise typer.Exit(1)


def _sync_given(settings: SatelliteSettings, given: tuple[str, ...], source: str, options: SyncOptions) -> RunOutcome:
    """Follow states given by hand, with a record of its own: what the satellite copied is not this run's to delete."""
    started = time.monotonic()
    url = settings.local_registry_url
    store = SatelliteStore(settings.data_dir / "sync" / registry_host(url).replace(":", "_"))
    with _local_registry(settings) as registry, store.lock():
        home = source or _home_of(given)
        credentials = _credentials(settings.source_username, settings.source_password)
        with Connections(
            home_url=home, credentials=credentials, target=registry, verify=_verify(settings), is_only=bool(source)
        ) as connections:
            states = load_states(connections, given)
            images = sync_states(connections, store, states, options)
            return run_outcome(connections, images, states_digest(states), time.monotonic() - started)


def _sync_own(settings: SatelliteSettings, options: SyncOptions) -> RunOutcome:
    """Follow the satellite state that this site was registered with."""
    store = SatelliteStore(settings.data_dir)
    registration = store.registration()
    auth = registration.auth
    with (
        _local_registry(settings) as registry,
        store.lock(),
        Connections(
            home_url=auth.url,
            credentials=_credentials(auth.username, auth.password),
            target=registry,
            verify=_verify(settings),
        ) as connections,
    ):
        return sync_satellite(connections, store, registration.state, options)


def _show(outcome: RunOutcome, output: Output) -> None:
    if output == "json":
        document = {
            action: [image.row() for image in outcome.of(action)] for action in ("copied", "kept", "deleted", "failed")
        } | {
            "state_digest": outcome.state_digest,
            "bytes_from_source": outcome.bytes_from_source,
            "requests": outcome.requests,
            "seconds": round(outcome.seconds, 3),
        }
        typer.echo(json.dumps(document, indent=2))
        return
    for image in sorted(outcome.images, key=lambda image: (image.action, image.reference)):
        typer.echo(f"{image.action:8}{image.reference}  {image.reason}")
    typer.echo(outcome.summary())


@contextlib.contextmanager
def _progress(*, is_shown: bool) -> Iterator[Callable[[int], None]]:
    if not is_shown:
        yield lambda _: None
        return
    columns = (TextColumn("copying"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("copying", total=None)
        yield lambda count: progress.advance(bar, count)


def _settings(ground_control: str, token_file: Path | None) -> SatelliteSettings:
    settings = SatelliteSettings()
    if ground_control:
        settings = settings.model_copy(update={"ground_control_url": ground_control})
    if token_file:
        settings = settings.model_copy(update={"token_file": token_file})
    if not settings.ground_control_url:
        raise InvalidInputError("no Ground Control: give --ground-control or HARBOR_SATELLITE_GROUND_CONTROL_URL")
    return settings


def _local_registry(settings: SatelliteSettings) -> HttpRegistry:
    credentials = _credentials(settings.local_registry_username, settings.local_registry_password)
    return HttpRegistry(settings.local_registry_url, credentials=credentials)


def _credentials(username: str, password: SecretStr) -> Credentials | None:
    return Credentials(username, password) if username else None


def _home_of(given: tuple[str, ...]) -> str:
    """Take the registry of the first reference for the one that credentials go to."""
    for item in given:
        if not Path(item).is_file() and "/" in item:
            scheme, separator, rest = item.rpartition("://")
            return f"{scheme}{separator}{rest.partition('/')[0]}"
    return ""


def _verify(settings: SatelliteSettings) -> bool | str:
    return str(settings.ca) if settings.ca else True
