"""``harbor-satellite edge sync|why|rollback``: replicating by hand, asking why, going back."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harbor_satellite.cli.images import Output, show_images
from harbor_satellite.cli.progress import show_progress
from harbor_satellite.edge_site import (
    credentials_of,
    given_store,
    local_registry,
    open_engine,
    open_own_engine,
    site_settings,
)
from harbor_satellite.oci.platform import Platform
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.satellite.sync import Watcher, sync_fetched, sync_satellite

if TYPE_CHECKING:
    from harbor_satellite.satellite.options import ReplicationOptions
    from harbor_satellite.satellite.outcome import RunOutcome
    from harbor_satellite.settings import SatelliteSettings


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
    settings = site_settings(data_dir, target)
    options = settings.replication_options(is_deep=deep, is_asked_for=True)
    if platform:
        options = replace(options, platforms=tuple(sorted({Platform.parse(item) for item in platform})))
    if workers:
        options = replace(options, image_workers=workers, blob_workers=max(workers, options.blob_workers))
    with show_progress(is_shown=output == "text" and sys.stderr.isatty()) as on_bytes:
        watcher = Watcher(on_bytes)
        if state:
            outcome = _sync_given(settings, tuple(state), source, options, watcher)
        else:
            outcome = _sync_own(settings, options, watcher)
    document = {
        "state_digest": outcome.state_digest,
        "bytes_from_source": outcome.bytes_from_source,
        "requests": outcome.requests,
        "seconds": round(outcome.seconds, 3),
    }
    show_images(outcome.images, output, document, outcome.summary())
    if not outcome.is_converged:
        raise typer.Exit(1)


def _sync_given(
    settings: SatelliteSettings, given: tuple[str, ...], source: str, options: ReplicationOptions, watcher: Watcher
) -> RunOutcome:
    """Follow states given by hand, with a record of its own: what the satellite copied is not this run's to delete."""
    from harbor_satellite.satellite.state_input import home_of, load_states  # noqa: PLC0415  (only here)

    store = given_store(settings)
    credentials = credentials_of(settings.source_username, settings.source_password)
    with (
        store.lock(),
        open_engine(
            settings,
            store,
            options,
            home_url=source or home_of(given),
            credentials=credentials,
            is_only=bool(source),
        ) as engine,
    ):
        engine.check_link()
        return sync_fetched(engine, load_states(engine.connections, given, engine.state_verifier), watcher)


def _sync_own(settings: SatelliteSettings, options: ReplicationOptions, watcher: Watcher) -> RunOutcome:
    """Follow the satellite state that this site was registered with."""
    store = SatelliteStore(settings.data_dir)
    registration = store.registration()
    with store.lock(), open_own_engine(settings, store, registration, options) as engine:
        return sync_satellite(engine, registration.state, watcher)


def why(
    image: Annotated[str, typer.Argument(help="REPOSITORY[:TAG|@DIGEST], as the site's registry names it.")],
    data_dir: Annotated[Path | None, typer.Option(help="The satellite's folder.")] = None,
    output: Annotated[Output, typer.Option(help="How to say it.")] = "text",
) -> None:
    """Say what was decided about an image, by which rule, and what happens next."""
    from harbor_satellite.satellite.explain import explain, explanation_text  # noqa: PLC0415

    settings = site_settings(data_dir)
    with local_registry(settings) as registry:
        explanations = explain(SatelliteStore(settings.data_dir), registry, image)
    if output == "json":
        typer.echo(json.dumps([item.document() for item in explanations], indent=2))
    else:
        typer.echo("\n".join(explanation_text(item) for item in explanations))


def rollback(
    undo: Annotated[bool, typer.Option("--undo", help="Follow the centre again.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="The satellite's folder.")] = None,
    output: Annotated[Output, typer.Option(help="How to say what was done.")] = "text",
) -> None:
    """Publish the previous generation again, without a byte from the source; the centre's next state ends it."""
    from harbor_satellite.satellite.rollback import release, roll_back  # noqa: PLC0415

    settings = site_settings(data_dir)
    store = SatelliteStore(settings.data_dir)
    with store.lock(), local_registry(settings) as registry:
        if undo:
            typer.echo("follows the centre again" if release(store) else "was not rolled back")
            return
        images = roll_back(registry, store)
    said = "the previous generation is published; the centre's next state, or `edge rollback --undo`, ends that"
    show_images(images, output, {}, said)
