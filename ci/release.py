"""Makes a release: images, wheel and sdist, SBOMs, chart, compose files, checksums, notes; `--dry-run` shows it all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio
from dagger import dag

from ci import charts
from ci.builder import dist
from ci.building import rows, write_archive
from ci.chart_artifact import chart_config, push_chart
from ci.checkout import tracked_texts
from ci.credentials import read_secret
from ci.errors import PipelineError, UsageError
from ci.github_release import API, make_release
from ci.packages import archive, chart_archive, checksums, ignored
from ci.publication import image_sboms, sbom_file, set_tags
from ci.references import image_reference
from ci.release_plan import CHART_NAME, TOKEN_VARIABLE, chart_reference, files_text, notes_text, plan_release, tags_text
from ci.report import table
from ci.toolbox import WORK
from ci.verbs import built_image, push_image, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import dagger

    from ci.building import Built
    from ci.references import Reference
    from ci.release_plan import Plan
    from ci.report import Row
    from ci.run import Run

SUMS: Final = "SHA256SUMS"
BUNDLE: Final = "SHA256SUMS.sigstore.json"
NOTES: Final = "NOTES.md"
PUBLIC_KEY: Final = "cosign.pub"


@dataclass
class Folder:
    """The files of a release, as they come to be."""

    path: Path
    names: list[str] = field(default_factory=list)

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the release."""
        (self.path / name).write_bytes(content)
        self.names.append(name)

    async def export(self, file: dagger.File, name: str) -> None:
        """Write a file of the engine's."""
        await file.export(str(self.path / name))
        self.names.append(name)

    def contents(self) -> dict[str, bytes]:
        """Return name → content of all files."""
        return {name: (self.path / name).read_bytes() for name in sorted(self.names)}


@dataclass(frozen=True)
class Images:
    """The images of a release, published or not."""

    references: Mapping[str, Reference]
    """Image → its reference by digest."""
    rows: tuple[Row, ...]

    @property
    def digests(self) -> dict[str, str]:
        """Image → its reference by digest, as text."""
        return {image: str(reference) for image, reference in self.references.items()}


@dataclass(frozen=True)
class Made:
    """What a release has made, published or not."""

    images: Images
    chart: Reference
    """By digest; by tag where it was not published."""


async def release_verb(run: Run) -> None:
    """Make the release, or show all that it would be."""
    plan = plan_release(run.options, run.build.source, run.build.commit, run.environment)
    if run.options.output is None:
        raise UsageError("--output is missing")
    folder = Folder(run.options.output)
    await anyio.Path(folder.path).mkdir(parents=True, exist_ok=True)
    # All of it is built and run before anything is pushed.
    built = [await built_image(run, image) for image in run.options.images]
    await _packages(run, plan, folder)
    made = await (_show if run.options.dry_run else publish_release)(run, plan, built, folder)
    folder.write(NOTES, notes_text(plan, made.images.digests | {"chart": str(made.chart)}).encode())
    say(table(made.images.rows))
    _say_release(run, plan, folder)
    if run.options.github and not run.options.dry_run:
        say(f"\nreleased: {_release_at_github(run, plan, folder)}")


async def publish_release(run: Run, plan: Plan, built: Sequence[Built], folder: Folder) -> Made:
    """Push, sign and verify images and chart, sign the checksums; when all of it is done, set all tags.

    Raises:
        PipelineError: a step failed; the tags are as before, unless it was setting them.
    """
    images = await _pushed(run, plan, built, folder)
    filled = _filled(run, plan, images)
    name = _write_packages(run, plan, folder, filled)
    chart = await push_chart(
        run.toolbox,
        folder.path / name,
        chart_config(filled[f"{charts.CHART}/Chart.yaml"]),
        where=_chart_repository(run),
        epoch=run.build.epoch,
        signing=run.signing(),
    )
    await _sign_sums(run, folder)
    wanted = [(reference, plan.tags) for reference in images.references.values()]
    await set_tags(run.toolbox, [*wanted, (chart, (plan.release.semver,))])
    return Made(images, chart)


async def _show(run: Run, plan: Plan, built: Sequence[Built], folder: Folder) -> Made:
    """Write all files of the release, but for what is signed."""
    images = await _shown(run, plan, built, folder)
    _write_packages(run, plan, folder, _filled(run, plan, images))
    return Made(images, _chart_repository(run).tagged(plan.release.semver))


async def _packages(run: Run, plan: Plan, folder: Folder) -> None:
    """Write wheel and sdist."""
    made = dist(run.build)
    for name in sorted(await made.entries()):
        if plan.release.pep440 not in name:
            raise PipelineError(f"{name} is not of {plan.release.pep440}")
        await folder.export(made.file(name), name)


async def _shown(run: Run, plan: Plan, built: Sequence[Built], folder: Folder) -> Images:
    """Return the images as they would be published: their digests are those of the archives."""
    references: dict[str, Reference] = {}
    found: list[Row] = []
    for each in built:
        path = folder.path / f"{each.image}.oci.tar"
        content = await write_archive(each, path)
        await anyio.Path(path).unlink()
        references[each.image] = _repository(run, each.image).at(content.digest)
        found += rows(each.image, each.smoke_seconds, content)
        for platform, file in (await image_sboms(run.toolbox, each.image, each.parts, plan.release.semver)).items():
            await folder.export(file, sbom_file(each.image, platform))
    return Images(references, tuple(found))


async def _pushed(run: Run, plan: Plan, built: Sequence[Built], folder: Folder) -> Images:
    """Push the images, write their SBOMs and return them; they have no tag yet."""
    signing = run.signing()
    references: dict[str, Reference] = {}
    found: list[Row] = []
    for each in built:
        publication = await push_image(run, each, signing, plan.release.semver)
        references[each.image] = publication.published.index
        found += publication.rows
        for platform, file in publication.sboms.items():
            await folder.export(file, sbom_file(each.image, platform))
    return Images(references, tuple(found))


def _write_packages(run: Run, plan: Plan, folder: Folder, filled: Mapping[str, str]) -> str:
    """Write chart, compose files and checksums; return the chart's file name."""
    version, epoch = plan.release.semver, run.build.epoch
    chart, patterns = _below(filled, charts.CHART), filled[f"{charts.CHART}/.helmignore"]
    kept = {path: content for path, content in chart.items() if not ignored(path, patterns)}
    name = f"{CHART_NAME}-{version}.tgz"
    folder.write(name, chart_archive(CHART_NAME, kept, epoch))
    compose = {f"{CHART_NAME}-{version}/{path}": text for path, text in _below(filled, charts.COMPOSE).items()}
    folder.write(f"{CHART_NAME}-compose-{version}.tgz", archive(compose, epoch))
    if run.options.public_key is not None:
        folder.write(PUBLIC_KEY, run.options.public_key.read_bytes())
    folder.write(SUMS, checksums(folder.contents()).encode())
    return name


async def _sign_sums(run: Run, folder: Folder) -> None:
    """Sign the checksums, and verify with what the user will verify with."""
    signing = run.signing()
    sums, bundle = f"{WORK}/{SUMS}", f"{WORK}/{BUNDLE}"
    files = {sums: dag.host().file(str(folder.path / SUMS))}
    steps = [signing.cosign.sign_blob(sums, bundle)]
    signed = await run.toolbox.run_cosign(signing.cosign, steps, secrets=signing.secrets, files=files)
    made = signed.file(bundle)
    await run.toolbox.run_cosign(
        signing.cosign, [signing.cosign.verify_blob(sums, bundle)], files=files | {bundle: made}
    )
    await folder.export(made, BUNDLE)


def _release_at_github(run: Run, plan: Plan, folder: Folder) -> str:
    token = read_secret(run.environment, TOKEN_VARIABLE)
    if token is None:
        raise UsageError(f"{TOKEN_VARIABLE} is missing")
    return make_release(
        repository=run.options.github,
        tag=run.options.release_tag,
        notes=(folder.path / NOTES).read_text(encoding="utf-8"),
        is_final=plan.release.is_final,
        is_latest=plan.is_latest,
        files=folder.contents(),
        token=token,
        api=run.environment.get("GITHUB_API_URL") or API,
    )


def _say_release(run: Run, plan: Plan, folder: Folder) -> None:
    wanted = [str(_repository(run, image).tagged(tag)) for image in run.options.images for tag in plan.tags]
    wanted.append(str(_chart_repository(run).tagged(plan.release.semver)))
    say("\nwould be published (dry run: nothing was):" if run.options.dry_run else "\npublished, signed and verified:")
    say(tags_text(wanted))
    say(f"\nfiles in {folder.path}:")
    say(files_text({name: len(content) for name, content in folder.contents().items()}))
    say(f"\n{(folder.path / NOTES).read_text(encoding='utf-8')}")


def _filled(run: Run, plan: Plan, images: Images) -> Mapping[str, str]:
    """Return path → content of the chart and the compose files, as the release has them."""
    texts = tracked_texts(run.build.source, charts.CHART, charts.COMPOSE)
    return charts.filled(texts, plan.release.semver, images.digests)


def _below(texts: Mapping[str, str], folder: str) -> dict[str, bytes]:
    """Return what is in a folder, by the path in it."""
    prefix = f"{folder}/"
    return {path.removeprefix(prefix): text.encode() for path, text in texts.items() if path.startswith(prefix)}


def _repository(run: Run, image: str) -> Reference:
    if run.options.prefix is None:
        raise UsageError("--registry is missing")
    return image_reference(run.options.prefix, image)


def _chart_repository(run: Run) -> Reference:
    if run.options.prefix is None:
        raise UsageError("--registry is missing")
    return chart_reference(run.options.prefix)
