"""``harbor-satellite edge sync|why|rollback``: replicating by hand, asking why, going back."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from harbor_satellite.cli.images import Output, show_images
from harbor_satellite.cli.pausing import PAUSED, show_pause
from harbor_satellite.cli.progress import show_progress
from harbor_satellite.edge.site import (
    credentials_of,
    effective_settings,
    given_source,
    given_store,
    local_registry,
    open_engine,
    open_gate,
    open_own_engine,
    recorded_store,
    site_settings,
)
from harbor_satellite.errors import PausedError
from harbor_satellite.oci.platform import Platform
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.satellite.sync import Watcher, recover, sync_fetched, sync_satellite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.satellite.generations import SiteGeneration
    from harbor_satellite.satellite.options import ReplicationOptions
    from harbor_satellite.satellite.outcome import ImageOutcome, RunOutcome
    from harbor_satellite.settings import SatelliteSettings

_RECORD_HELP: Final = "URL of the local registry: of what `edge sync --state` brought there. Without: the site's own."


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
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Ask whether every blob of what is there is there with the right size; `edge audit` reads the bytes.",
        ),
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Images on their way at once.", min=1, max=64)] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the record of what was copied is kept.")] = None,
    output: Annotated[Output, typer.Option(help="How to say what was done.")] = "text",
) -> None:
    """Replicate once, without Ground Control and without Prefect; the same library path as the flow.

    Exit codes: 0 done, 1 something failed, 2 wrong use, 3 paused by a sync window or a cap.
    """
    settings = site_settings(data_dir, target)
    given_source(source)
    settings = settings if state else effective_settings(settings, is_target_given=bool(target))
    options = settings.replication_options(is_deep=deep, is_asked_for=True)
    if platform:
        options = replace(options, platforms=tuple(sorted({Platform.parse(item) for item in platform})))
    if workers:
        options = replace(options, image_workers=workers, blob_workers=max(workers, options.blob_workers))
    try:
        with show_progress(is_shown=output == "text" and sys.stderr.isatty()) as on_bytes:
            watcher = Watcher(on_bytes)
            if state:
                outcome = _sync_given(settings, tuple(state), source, options, watcher)
            else:
                outcome = _sync_own(settings, options, watcher)
    except PausedError as error:
        show_pause(str(error), error.until, settings.timezone, output)
        raise typer.Exit(PAUSED) from error
    _show_run(settings, options, outcome, output)


def _show_run(settings: SatelliteSettings, options: ReplicationOptions, outcome: RunOutcome, output: Output) -> None:
    """Show a run, and end with the exit code that it asks for."""
    is_paused = bool(outcome.of("paused")) and not (outcome.of("failed") or outcome.of("quarantined"))
    document: dict[str, object] = {
        "state_digest": outcome.state_digest,
        "bytes_from_source": outcome.bytes_from_source,
        "requests": outcome.requests,
        "seconds": round(outcome.seconds, 3),
    }
    if not outcome.of("paused"):
        show_images(outcome.images, output, document, outcome.summary())
    else:
        with open_gate(settings, options) as gate:
            until = gate.ledger.resumes_at
        document["until"] = until.isoformat() if until else None
        show_images(outcome.images, output, document, outcome.summary())
        if output == "text":
            show_pause(outcome.of("paused")[0].reason, until, settings.timezone, output)
    if not outcome.is_converged:
        raise typer.Exit(PAUSED if is_paused else 1)


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
        recover(engine)
        engine.check_link()
        return sync_fetched(engine, load_states(engine.connections, given, engine.state_verifier), watcher)


def _sync_own(settings: SatelliteSettings, options: ReplicationOptions, watcher: Watcher) -> RunOutcome:
    """Follow the satellite state that this site was registered with."""
    store = SatelliteStore(settings.data_dir)
    registration = store.registration()
    with store.lock(), open_own_engine(settings, store, registration, options) as engine:
        return sync_satellite(engine, registration.state, watcher)


def why(
    image: Annotated[str, typer.Argument(help="REPOSITORY[:TAG|@DIGEST]; a registry in front of it does not matter.")],
    target: Annotated[str, typer.Option(help=_RECORD_HELP)] = "",
    data_dir: Annotated[Path | None, typer.Option(help="The satellite's folder.")] = None,
    output: Annotated[Output, typer.Option(help="How to say it.")] = "text",
) -> None:
    """Say what was decided about an image, by which rule, and what happens next."""
    from harbor_satellite.satellite.explain import explain, explanation_text  # noqa: PLC0415

    settings = site_settings(data_dir, target)
    store = recorded_store(settings, is_target_given=bool(target))
    with local_registry(settings) as registry:
        explanations = explain(store, registry, image)
    if output == "json":
        typer.echo(json.dumps([item.document() for item in explanations], indent=2))
    else:
        typer.echo("\n".join(explanation_text(item) for item in explanations))


def rollback(
    undo: Annotated[bool, typer.Option("--undo", help="Follow the centre again.")] = False,
    target: Annotated[str, typer.Option(help=_RECORD_HELP)] = "",
    data_dir: Annotated[Path | None, typer.Option(help="The satellite's folder.")] = None,
    output: Annotated[Output, typer.Option(help="How to say what was done.")] = "text",
) -> None:
    """Publish the previous generation again, without a byte from the source; the centre's next state ends it."""
    from harbor_satellite.satellite.generations import load_generations  # noqa: PLC0415
    from harbor_satellite.satellite.rollback import roll_back, take_back  # noqa: PLC0415

    settings = site_settings(data_dir, target)
    store = recorded_store(settings, is_target_given=bool(target))
    with store.lock(), local_registry(settings) as registry:
        images = take_back(registry, store) if undo else roll_back(registry, store)
        current = load_generations(store).current
    document: dict[str, object] = {"rolled_back": images is not None} if undo else {}
    said = (
        _undo_text(settings, store, images)
        if undo
        else f"{_ending(settings, store)}, or `edge rollback --undo`, ends that"
    )
    if current and images:
        document |= _generation_document(current)
        said = f"published: {_generation_text(current)}\n{said}"
    show_images(images or (), output, document, said)
    if any(image.action == "failed" for image in images or ()):
        raise typer.Exit(1)


def _undo_text(settings: SatelliteSettings, store: SatelliteStore, images: tuple[ImageOutcome, ...] | None) -> str:
    if images is None:
        return "was not rolled back"
    whom = "the centre" if _is_own(settings, store) else "the last given state"
    return f"back where {whom} is" if images else f"follows {whom} again from the next run on"


def _ending(settings: SatelliteSettings, store: SatelliteStore) -> str:
    return "the centre's next state" if _is_own(settings, store) else "the next `edge sync --state`"


def _is_own(settings: SatelliteSettings, store: SatelliteStore) -> bool:
    return store.folder == settings.data_dir


def _generation_document(generation: SiteGeneration) -> Mapping[str, object]:
    groups = [{"group": group.group, "generation": group.generation} for group in generation.groups]
    return {"state_digest": str(generation.state_digest), "groups": groups}


def _generation_text(generation: SiteGeneration) -> str:
    groups = ", ".join(
        f"{group.group} generation {group.generation}" if group.generation else group.group
        for group in generation.groups  # a state without a generation has 0
    )
    return f"state {generation.state_digest} of {generation.published_at:%Y-%m-%d %H:%M} UTC ({groups or 'no group'})"
