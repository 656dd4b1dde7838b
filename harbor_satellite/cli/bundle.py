"""``harbor-satellite edge receipt|export|import``: replicating by carried media, for sites without a link."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harbor_satellite.cli.images import Output, show_images
from harbor_satellite.cli.progress import show_progress
from harbor_satellite.edge.site import (
    credentials_of,
    effective_settings,
    given_source,
    given_store,
    local_access,
    local_registry,
    open_gate,
    receive_buffer_bytes,
    site_settings,
    verify_option,
)
from harbor_satellite.errors import InvalidInputError, NotFoundError
from harbor_satellite.inputs import parse_size
from harbor_satellite.oci.platform import Platform
from harbor_satellite.satellite.connections import Connections
from harbor_satellite.satellite.options import WanLimits
from harbor_satellite.satellite.receipt import RECEIPT_MAX_BYTES, Receipt, parse_receipt, receipt_json
from harbor_satellite.satellite.replication import fetch_state, utc_now
from harbor_satellite.satellite.state_input import home_of
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.satellite.bundle_export import ExportOutcome
    from harbor_satellite.satellite.bundle_import import BundleConnections
    from harbor_satellite.satellite.outcome import RunOutcome
    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration


def receipt(
    target: Annotated[str, typer.Option(help="URL of the local registry.")] = "",
    data_dir: Annotated[Path | None, typer.Option(help="The satellite's folder.")] = None,
) -> None:
    """Write, as JSON, what this site holds and follows: to be carried to where a bundle is made for it."""
    from harbor_satellite.satellite.site_contents import read_site  # noqa: PLC0415  (each command its own imports)

    settings = effective_settings(site_settings(data_dir, target), is_target_given=bool(target))
    store = SatelliteStore(settings.data_dir)
    registration = _registration(store)
    records = [store.applied(), given_store(settings).applied()]
    with local_registry(settings) as registry:
        contents = read_site(registry, {name.repository for record in records for name in record.owned})
    groups = {group.group: group for record in reversed(records) for group in record.groups}
    made = Receipt(
        satellite=registration.satellite if registration else "",
        state=registration.state if registration else "",
        made_at=utc_now(),
        groups=tuple(group for _, group in sorted(groups.items())),
        platforms=settings.replication_options().platforms,
        repositories=contents.repositories,
        blobs=contents.largest_blobs(),
    )
    typer.echo(receipt_json(made), nl=False)
    if sys.stderr.isatty():
        held = sum(len(item.manifests) + len(item.sparse) for item in contents.repositories.values())
        typer.echo(
            f"{held} manifests in {len(contents.repositories)} repositories, {len(contents.blobs)} blobs", err=True
        )


def export(
    output: Annotated[Path, typer.Option(help="File to write; split, its parts are FILE.000, FILE.001, …")],
    state: Annotated[
        list[str] | None,
        typer.Option(help="File with a state's JSON, or reference of a state; repeatable. Without: the site's own."),
    ] = None,
    since: Annotated[
        Path | None, typer.Option(help="Receipt of the site: what it holds is left out. Without: everything.")
    ] = None,
    split: Annotated[str, typer.Option(help="Largest part, such as 4G or 700M (decimal; Gi, Mi: binary).")] = "",
    platform: Annotated[
        list[str] | None, typer.Option(help="os/architecture[/variant]; repeatable. Without: as the receipt says.")
    ] = None,
    source: Annotated[str, typer.Option(help="URL of the registry to copy from, whatever the state names.")] = "",
    data_dir: Annotated[Path | None, typer.Option(help="Folder of a registered satellite.")] = None,
    report: Annotated[Output, typer.Option(help="How to say what was done.")] = "text",
) -> None:
    """Write what a site lacks into a bundle, an OCI image layout in a tar, to be carried there."""
    from harbor_satellite.satellite.bundle_decision import decide  # noqa: PLC0415
    from harbor_satellite.satellite.bundle_export import ExportOptions, export_bundle  # noqa: PLC0415

    settings = site_settings(data_dir, "")
    given_source(source)
    if not output.parent.is_dir():
        raise InvalidInputError(f"no such folder: {output.parent}")
    held = _read_receipt(since) if since else None
    options = ExportOptions(
        output=output,
        part_bytes=parse_size(split) if split else None,
        platforms=_platforms(platform, settings, held),
        receipt=held,
    )
    with _sources(settings, tuple(state or ()), source, held) as (connections, given):
        decision = decide(connections, given, held.groups if held else (), utc_now())
        with show_progress(is_shown=report == "text" and sys.stderr.isatty(), what="exporting") as on_bytes:
            outcome = export_bundle(connections, decision, replace(options, on_bytes=on_bytes), utc_now())
    _show_export(outcome, report)
    if not outcome.is_complete:
        raise typer.Exit(1)


def import_(
    bundle: Annotated[Path, typer.Argument(help="The bundle, or the first of its parts.")],
    target: Annotated[str, typer.Option(help="URL of the local registry.")] = "",
    data_dir: Annotated[Path | None, typer.Option(help="The satellite's folder.")] = None,
    output: Annotated[Output, typer.Option(help="How to say what was done.")] = "text",
) -> None:
    """Follow the decision in a bundle, with the content in it: the same steps as a replication, without a link."""
    from harbor_satellite.satellite.bundle_import import BundleConnections  # noqa: PLC0415

    settings = site_settings(data_dir, target)
    is_shown = output == "text" and sys.stderr.isatty()
    with (
        local_registry(settings) as registry,
        BundleConnections(bundle, registry, local_access(settings)) as connections,
    ):
        with show_progress(is_shown=is_shown, what="checking") as on_bytes:
            connections.check(on_bytes)
        outcome = _import(settings, connections, is_shown=is_shown)
    show_images(outcome.images, output, _import_document(outcome), outcome.summary())
    if not outcome.is_converged:
        raise typer.Exit(1)


def _import(settings: SatelliteSettings, connections: BundleConnections, *, is_shown: bool) -> RunOutcome:
    from harbor_satellite.satellite.engine import Engine  # noqa: PLC0415
    from harbor_satellite.satellite.sync import Watcher, sync_satellite  # noqa: PLC0415

    decision, own = connections.decision(), SatelliteStore(settings.data_dir)
    if decision.is_own:
        store, registration, settings = own, _registration(own), effective_settings(settings, own)
        if registration:
            decision.check_satellite(registration.satellite, registration.state)
    else:
        # States given by hand have a record of their own, as in `edge sync --state`, and are no way around this one.
        store = given_store(settings)
        fetch_state(connections.as_connections(), decision.state, own.applied().highest(), utc_now())
    options = settings.replication_options(is_asked_for=True)
    # No byte crosses the link, so nothing of its limits holds.
    options = replace(options, wan=WanLimits(), platforms=options.platforms or connections.platforms)
    with store.lock(), show_progress(is_shown=is_shown, what="importing") as on_bytes:
        return sync_satellite(Engine(connections.as_connections(), store, options), decision.state, Watcher(on_bytes))


@contextlib.contextmanager
def _sources(
    settings: SatelliteSettings, given: tuple[str, ...], source: str, held: Receipt | None
) -> Iterator[tuple[Connections, tuple[str, ...]]]:
    """Open the registries to export from: those that the given states name, or that of the registration."""
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(local_registry(settings))  # never asked anything
        if given:
            connections = Connections(
                home_url=source or home_of(given),
                credentials=credentials_of(settings.source_username, settings.source_password),
                target=target,
                verify=verify_option(settings),
                is_only=bool(source),
            )
            yield stack.enter_context(connections), given
            return
        store = SatelliteStore(settings.data_dir)
        registration = _registration(store)
        if registration is None:
            hint = f", such as --state {held.state}" if held and held.state else ""
            raise InvalidInputError(f"no state to export: this place is not registered, so give --state{hint}")
        if source:
            raise InvalidInputError("--source is for states given with --state")
        options = settings.replication_options()
        gate = stack.enter_context(open_gate(settings, options))
        connections = Connections(
            home_url=registration.auth.url,
            credentials=credentials_of(registration.auth.username, registration.auth.password),
            target=target,
            verify=verify_option(settings),
            on_read=gate.spend,
            receive_buffer_bytes=receive_buffer_bytes(options),
        )
        yield stack.enter_context(connections), (registration.state,)


def _registration(store: SatelliteStore) -> Registration | None:
    try:
        return store.registration()
    except NotFoundError:
        return None


def _read_receipt(path: Path) -> Receipt:
    try:
        with path.open("rb") as file:
            raw = file.read(RECEIPT_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    return parse_receipt(raw, str(path))


def _platforms(given: list[str] | None, settings: SatelliteSettings, held: Receipt | None) -> tuple[Platform, ...]:
    if given:
        return tuple(sorted({Platform.parse(item) for item in given}))
    return held.platforms if held else settings.replication_options().platforms


def _show_export(outcome: ExportOutcome, output: Output) -> None:
    document: dict[str, object] = {
        "files": [str(path) for path in outcome.paths],
        "bytes": outcome.size,
        "bytes_from_source": outcome.bytes_from_source,
        "seconds": round(outcome.seconds, 3),
    }
    counts = ", ".join(
        f"{sum(image.action == action for image in outcome.images)} {word}"
        for action, word in (("copied", "in the bundle"), ("kept", "at the site already"), ("failed", "failed"))
    )
    files = f"{outcome.paths[0]}" + (f" … {outcome.paths[-1].name}" if len(outcome.paths) > 1 else "")
    show_images(outcome.images, output, document, f"{counts}; {outcome.size} bytes in {files}")


def _import_document(outcome: RunOutcome) -> dict[str, object]:
    return {
        "state_digest": outcome.state_digest,
        "bytes_from_bundle": outcome.bytes_from_source,
        "seconds": round(outcome.seconds, 3),
    }
