"""``harbor-satellite edge runtime …``: this host's container runtimes and the local registry."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from harbor_satellite.cli.runtime_pulls import show_pulls
from harbor_satellite.edge.runtimes import (
    RuntimeOutcome,
    grant,
    outcome_of,
    read_outcomes,
    save_outcomes,
    site_mirrors,
)
from harbor_satellite.edge.site import effective_settings, local_registry, recorded_store, site_settings
from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, NotFoundError
from harbor_satellite.host_config.containerd import CERTS
from harbor_satellite.host_config.rendered import OWN_NAME
from harbor_satellite.host_config.runtimes import RUNTIMES, runtime_named
from harbor_satellite.satellite.host import Host
from harbor_satellite.satellite.runtime_sample import choose_image, given_tag, host_platform, tagged_sample
from harbor_satellite.satellite.runtime_verify import Puller, names_to_try
from harbor_satellite.satellite.runtime_wish import read_wish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harbor_satellite.host_config.rendered import MirrorSettings
    from harbor_satellite.registry.client import HttpRegistry
    from harbor_satellite.satellite.host_plan import FileChange, RuntimePlan
    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.desired import LocalTag

_NAMES: Final = ", ".join(RUNTIMES)
Names = Annotated[
    list[str] | None,
    typer.Option("--runtime", help=f"Of {_NAMES}; repeatable. Without: the site's setting, else those that are here."),
]
Registries = Annotated[
    list[str] | None,
    typer.Option(
        "--registry", help="host[:port] that the local registry stands in for; repeatable. Without: the site's."
    ),
]
Target = Annotated[str, typer.Option(help="URL of the local registry. Without: the site's.")]
Fallback = Annotated[
    bool | None,
    typer.Option("--fallback/--no-fallback", help="Whether runtimes ask the registry itself for what is missing."),
]
Root = Annotated[
    Path | None, typer.Option(help="Where the host's / is seen, such as /host in a container. Without: the setting.")
]
DataDir = Annotated[Path | None, typer.Option(help="The satellite's folder.")]
Output = Annotated[Literal["table", "json"], typer.Option(help="How to say what was found or done.")]

app = typer.Typer(
    help="Point this host's container runtimes at the local registry.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def plan(
    runtime: Names = None,
    registry: Registries = None,
    target: Target = "",
    fallback: Fallback = None,
    root: Root = None,
    data_dir: DataDir = None,
    output: Output = "table",
) -> None:
    """Show what `apply` would change, as a diff; nothing is written."""
    settings = effective_settings(site_settings(data_dir, target), is_target_given=bool(target))
    mirrors, host = _mirrors(settings, registry, fallback=fallback), Host(root or settings.host_root)

    def act(name: str) -> RuntimePlan:
        return _with_advice(host.plan(name, mirrors), settings)

    _each(_wanted(runtime, settings, host), act, output, is_planned=True)


@app.command()
def apply(
    runtime: Names = None,
    registry: Registries = None,
    target: Target = "",
    fallback: Fallback = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where somebody changed lines that we wrote; a copy is kept.")
    ] = False,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Do what the agent asks for in this file, and nothing else.")
    ] = None,
    root: Root = None,
    data_dir: DataDir = None,
    output: Output = "table",
) -> None:
    """Write the files, keep what was there, and reload what needs it. Safe to repeat."""
    if from_file:
        _grant(from_file, Host(root or Path("/")))  # none of the agent's settings
        return
    settings = effective_settings(site_settings(data_dir, target), is_target_given=bool(target))
    mirrors, host = _mirrors(settings, registry, fallback=fallback), Host(root or settings.host_root)

    def act(name: str) -> RuntimePlan:
        # What the site wants stays the site's, which undoes it when nobody wants it any more.
        by = "site" if name in settings.runtimes else "hand"
        done = host.apply(name, mirrors, by=by, is_forced=force)
        _note(settings, outcome_of(host, done))
        return _with_advice(done, settings)

    _each(_wanted(runtime, settings, host), act, output)


@app.command()
def undo(
    runtime: Annotated[
        list[str] | None, typer.Option("--runtime", help=f"Of {_NAMES}; repeatable. Without: all that were configured.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where somebody changed a file since; a copy is kept.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be put back.")] = False,
    root: Root = None,
    data_dir: DataDir = None,
    output: Output = "table",
) -> None:
    """Put back every file as it was before `apply`, to the byte."""
    settings = site_settings(data_dir)
    host = Host(root or settings.host_root)
    names = [runtime_named(name).name for name in runtime] if runtime else list(host.configured())

    def act(name: str) -> RuntimePlan:
        done = host.undo(name, is_forced=force, is_planned=dry_run)
        if not dry_run:
            _note(settings, RuntimeOutcome(name))
        return done

    _each(names, act, output, is_planned=dry_run)


@app.command()
def verify(
    runtime: Names = None,
    registry: Registries = None,
    image: Annotated[
        str, typer.Option(help="REPOSITORY:TAG in the local registry. Without: the smallest that was replicated.")
    ] = "",
    target: Target = "",
    data_dir: DataDir = None,
    output: Output = "table",
) -> None:
    """Pull a small image through each runtime, by every name that means the local registry, and remove it again.

    Exit code 0: all came from the local registry; 1: something did not; 2: something could not be tried.
    """
    settings = effective_settings(site_settings(data_dir, target), is_target_given=bool(target))
    if settings.host_root != Path("/"):
        raise InvalidInputError(
            f"the runtimes of {settings.host_root} are another machine's: verify on the host itself"
        )
    host = Host(Path("/"))
    names = [runtime_named(name).name for name in runtime or host.configured()]
    if not names:
        raise NotFoundError("no runtime is configured here: `edge runtime apply` does that, and --runtime names one")
    puller = Puller(_hosts_folder(host))
    registries = _mirrors(settings, registry, fallback=None).registries
    with (
        local_registry(settings) as local,
        tagged_sample(local, _sample_name(local, image, settings, is_target_given=bool(target))) as sample,
    ):
        tries = [(name, one) for name in names for one in names_to_try(name, registries, sample)]
        results = [puller.pull(name, one, sample) for name, one in tries]
    show_pulls(results, output)


def _sample_name(local: HttpRegistry, image: str, settings: SatelliteSettings, *, is_target_given: bool) -> LocalTag:
    if image:
        return given_tag(image)
    applied = recorded_store(settings, is_target_given=is_target_given).applied()
    names = (name for name in applied.wanted if not name.is_digest)
    # A name of one word is another one at Docker Hub: library/…
    smallest = sorted(names, key=lambda name: ("/" not in name.repository, applied.sizes.get(name, sys.maxsize), name))
    return choose_image(local, smallest, host_platform())


def _hosts_folder(host: Host) -> str:
    """Return where containerd's files of registries are."""
    paths = (PurePosixPath(path) for path in host.written("containerd"))
    return next((str(path.parent.parent) for path in paths if path.parts[-2:] == (OWN_NAME, "hosts.toml")), CERTS)


def _with_advice(plan: RuntimePlan, settings: SatelliteSettings) -> RuntimePlan:
    """Add what a hand-made configuration needs besides its files."""
    if plan.runtime != "docker" or "docker" in settings.runtimes:
        return plan
    advice = f"{OWN_NAME}/… needs the agent's forwarder at port 80: add docker to HARBOR_SATELLITE_RUNTIMES"
    return replace(plan, notes=(*plan.notes, advice))


def _mirrors(settings: SatelliteSettings, registries: list[str] | None, *, fallback: bool | None) -> MirrorSettings:
    mirrors = site_mirrors(settings)
    if registries:
        mirrors = replace(mirrors, registries=tuple(dict.fromkeys(registries)))
    return mirrors if fallback is None else replace(mirrors, is_fallback=fallback)


def _wanted(names: list[str] | None, settings: SatelliteSettings, host: Host) -> list[str]:
    found = names or settings.runtimes or host.installed()
    if not found:
        raise NotFoundError(f"found no container runtime here: name one by --runtime ({_NAMES})")
    return [runtime_named(name).name for name in dict.fromkeys(found)]


def _grant(path: Path, host: Host) -> None:
    outcomes = grant(read_wish(path), host, path.parent)
    for outcome in outcomes:
        typer.echo(f"{outcome.name}: {outcome.problem or 'applied'}")
    if any(outcome.problem for outcome in outcomes):
        raise typer.Exit(1)


def _note(settings: SatelliteSettings, outcome: RuntimeOutcome) -> None:
    """Leave word for the status page, if there is a satellite here."""
    if not settings.data_dir.is_dir():
        return
    known = read_outcomes(settings.data_dir)
    after = {name: one for name, one in known.items() if name != outcome.name}
    if outcome.applied_at:
        after[outcome.name] = outcome
    if after != known:
        save_outcomes(settings.data_dir, tuple(after.values()))


def _each(names: Iterable[str], act: Callable[[str], RuntimePlan], output: str, *, is_planned: bool = False) -> None:
    """Do one runtime after the other: what stops one does not stop the next."""
    shown: list[dict[str, Any]] = []
    for name in names:
        try:
            found = act(name)
        except HarborSatelliteError as error:
            shown.append({"runtime": name, "error": str(error)})
            if output == "table":
                typer.echo(f"error: {name}: {error}", err=True)
            continue
        shown.append(_document(found))
        if output == "table":
            _show(found, is_planned=is_planned)
    if output == "json":
        typer.echo(json.dumps({"runtimes": shown}, indent=2))
    elif not shown:
        typer.echo("no runtime is configured")
    if any("error" in one for one in shown):
        raise typer.Exit(1)


def _verb(change: FileChange) -> str:
    if change.then is None:
        return "remove"
    return "create" if change.now is None else "change"


def _document(found: RuntimePlan) -> dict[str, Any]:
    changes = [change for change in found.changes if change.is_change]
    return {
        "runtime": found.runtime,
        "changes": [{"path": one.path, "change": _verb(one), "diff": one.diff()} for one in changes],
        "notes": list(found.notes),
        "actions": list(found.actions),
    }


def _show(found: RuntimePlan, *, is_planned: bool) -> None:
    changes = [change for change in found.changes if change.is_change]
    for change in changes:
        typer.echo(change.diff() if is_planned else f"{_verb(change)}d {change.path}")
    said = f"{len(changes)} files {'to change' if is_planned else 'changed'}" if changes else "no change"
    typer.echo(f"{found.runtime}: {said}")
    for line in (*found.notes, *found.actions):
        typer.echo(f"  {line}")
