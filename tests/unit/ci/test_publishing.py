"""In which order several images, and a release's chart and checksums, are pushed, signed, verified and tagged.

The toolbox writes down what it is asked for and has neither engine nor registry; everything else is the pipeline's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from dagger import dag

from ci import charts
from ci.building import Built
from ci.checkout import read_build
from ci.context import Mirrors
from ci.credentials import Login, Secret
from ci.errors import PipelineError
from ci.options import parse
from ci.platforms import GROUND_CONTROL, SATELLITE
from ci.release import Folder, publish_release
from ci.release_plan import plan_release
from ci.run import Run
from ci.signing import Published
from ci.toolbox import Toolbox
from ci.tools import BUILDER, COSIGN, ORAS, SYFT, ZOT
from ci.verbs import attest, publish_built
from tests.unit.ci.checkouts import make_checkout, make_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import dagger

    from ci.credentials import Secret as SecretValue
    from ci.references import Reference
    from ci.signing import Cosign

PROJECT = Path(__file__).resolve().parents[3]
PLATFORM = "linux/amd64"
SPDX = json.dumps({"packages": [{"name": "hello"}]})
DIGEST = "sha256:" + "1" * 64


@dataclass
class FakeFile:
    """A file of an engine that is not there."""

    text: str

    async def contents(self) -> str:
        return self.text

    async def export(self, path: str) -> str:
        await anyio.Path(path).write_text(self.text)
        return path


class FakeContainer:
    """Whatever is run in it works; each of its files is an SPDX document."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self

    def file(self, _path: str) -> FakeFile:
        return FakeFile(SPDX)


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True)
class RecordingToolbox(Toolbox):
    """Writes down what would change a registry, as `what subject`."""

    done: list[str] = field(default_factory=list)
    fails_at: str = ""
    """What is to fail."""

    def note(self, what: str) -> None:
        if what == self.fails_at:
            raise PipelineError(f"{what} failed")
        self.done.append(what)

    def container(self, name: str) -> dagger.Container:
        del name
        return cast("dagger.Container", FakeContainer())

    def text_file(self, name: str, text: str) -> dagger.File:
        del name
        return cast("dagger.File", FakeFile(text))

    async def tool_image(self, name: str) -> str:
        return f"tools.example/{name}@{DIGEST}"

    async def push(self, archive: dagger.File, name: str, where: Reference) -> Reference:
        del archive
        self.note(f"push {name}:{where.tag}")
        return where.at(digest(name))

    async def manifest(self, reference: Reference) -> bytes:
        del reference
        return json.dumps({"config": {"size": 1}, "layers": []}).encode()

    async def platforms(self, reference: Reference) -> dict[str, Reference]:
        return {PLATFORM: reference}

    async def tags(self, reference: Reference) -> frozenset[str]:
        del reference
        return frozenset()

    async def tag(self, reference: Reference, tag: str) -> Reference:
        self.note(f"tag {short(str(reference))}:{tag}")
        return reference.tagged(tag)

    async def run_cosign(
        self,
        cosign: Cosign,
        steps: Sequence[list[str]],
        *,
        secrets: Mapping[str, SecretValue] | None = None,
        files: Mapping[str, dagger.File] | None = None,
    ) -> dagger.Container:
        del cosign, secrets, files
        for argv in steps:
            self.note(f"{argv[0]} {short(argv[-1])}")
        return cast("dagger.Container", FakeContainer())


def short(reference: str) -> str:
    return reference.partition("@")[0].rpartition("/")[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As much of this checkout as a release reads, of version 1.2.3."""
    source = make_source(tmp_path_factory.mktemp("checkout"))
    for folder in (charts.CHART, charts.COMPOSE, "ci/locks"):
        shutil.copytree(PROJECT / folder, source / folder, ignore=shutil.ignore_patterns("secrets", ".env", "*.json"))
    for name in ("constraints-edge.txt", "constraints-ground-control.txt"):
        shutil.copy(PROJECT / name, source)
    (source / "CHANGELOG.md").write_text("## [1.2.3]\n\n- All.\n")
    (source / "cosign.pub").write_text("-----BEGIN PUBLIC KEY-----\n")
    (source / ".gitignore").write_text("/deployments/compose/secrets/\n")
    make_checkout(source)
    (source / "deployments/compose/secrets").mkdir()
    (source / "deployments/compose/secrets/x").write_text("made-up-secret")
    return source


def make_run(checkout: Path, *argv: str, fails_at: str = "") -> Run:
    options = parse([*argv, "--source", str(checkout), "--public-key", str(checkout / "cosign.pub")])
    build = read_build(checkout, "", Mirrors(), {})
    environment = {"COSIGN_PRIVATE_KEY": "made-up"}
    toolbox = RecordingToolbox({}, fails_at=fails_at)
    return Run(options, build, toolbox, environment, datetime.now(UTC), staging="sha-0")


def steps(run: Run) -> list[str]:
    return cast("RecordingToolbox", run.toolbox).done


def built(image: str) -> Built:
    archive = dag.host().file("/nowhere")
    return Built(image, archive, {PLATFORM: archive}, {PLATFORM: 1.0})


IMAGES = (SATELLITE, GROUND_CONTROL)
PUBLISH = ("publish", "--registry", "ghcr.io/acme", "--tag", "1.2.3", "--tag", "latest")
RELEASE = ("release", "--registry", "ghcr.io/acme", "--tag", "v1.2.3", "--dry-run")


def publish(run: Run) -> None:
    anyio.run(publish_built, run, [built(image) for image in IMAGES])


def release(run: Run, folder: Path) -> None:
    plan = plan_release(run.options, run.build.source, run.build.commit, {})
    anyio.run(publish_release, run, plan, [built(image) for image in IMAGES], Folder(folder))


def test_publish_built_sets_no_tag_before_all_images_are_verified(checkout: Path) -> None:
    run = make_run(checkout, *PUBLISH)

    publish(run)

    first = next(number for number, step in enumerate(steps(run)) if step.startswith("tag"))
    assert steps(run)[first:] == [f"tag {image}:{tag}" for image in IMAGES for tag in ("1.2.3", "latest")]
    for image in IMAGES:
        before = steps(run)[:first]
        assert {f"push {image}:sha-0", f"sign {image}", f"verify {image}", f"verify-attestation {image}"} <= {*before}


@pytest.mark.parametrize("what", ["push", "sign", "attest", "verify", "verify-attestation"])
def test_publish_built_second_image_fails_and_no_image_has_a_tag(checkout: Path, what: str) -> None:
    subject = "ground-control:sha-0" if what == "push" else "ground-control"
    run = make_run(checkout, *PUBLISH, fails_at=f"{what} {subject}")

    with pytest.raises(PipelineError, match=f"{what} ground-control.* failed"):
        publish(run)

    assert "verify satellite" in steps(run)
    assert not [step for step in steps(run) if step.startswith("tag")]


def test_publish_release_sets_tags_last_of_all(checkout: Path, tmp_path: Path) -> None:
    run = make_run(checkout, *RELEASE)

    release(run, tmp_path)

    tags = ("1.2.3", "1.2", "1", "latest")
    expected = [f"tag {image}:{tag}" for image in IMAGES for tag in tags] + ["tag harbor-satellite:1.2.3"]
    assert [step for step in steps(run) if step.startswith("tag")] == expected
    assert steps(run)[-len(expected) :] == expected
    assert {"sign harbor-satellite", "verify harbor-satellite", "sign-blob SHA256SUMS", "verify-blob SHA256SUMS"} <= {
        *steps(run)
    }


@pytest.mark.parametrize("fails_at", ["verify harbor-satellite", "verify-blob SHA256SUMS"], ids=["chart", "checksums"])
def test_publish_release_chart_or_checksums_fail_and_nothing_has_a_tag(
    checkout: Path, tmp_path: Path, fails_at: str
) -> None:
    run = make_run(checkout, *RELEASE, fails_at=fails_at)

    with pytest.raises(PipelineError, match=f"{fails_at} failed"):
        release(run, tmp_path)

    assert not [step for step in steps(run) if step.startswith("tag")]


def test_publish_release_archives_hold_no_secret_that_lies_in_their_folders(checkout: Path, tmp_path: Path) -> None:
    release(make_run(checkout, *RELEASE), tmp_path)

    shutil.unpack_archive(tmp_path / "harbor-satellite-compose-1.2.3.tgz", tmp_path / "out", filter="data")
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert {"centre.yaml", "site.yaml"} <= names
    assert not names & {"secrets", "x"}


def attested(run: Run, reference: Reference) -> None:
    sboms = {PLATFORM: cast("dagger.File", FakeFile(SPDX))}
    anyio.run(attest, run, Published(reference, {PLATFORM: reference}), sboms)


def test_attest_signs_no_image_and_only_what_is_signed_already(checkout: Path) -> None:
    run = make_run(checkout, "sbom", f"ghcr.io/acme/satellite@{DIGEST}", "--attest")

    attested(run, run.options.references[0])

    names = [step.partition(" ")[0] for step in steps(run)]
    assert names == ["verify", "attest", "verify", "verify-attestation"]


def test_attest_image_that_nobody_signed_is_refused(checkout: Path) -> None:
    run = make_run(checkout, "sbom", f"ghcr.io/acme/satellite@{DIGEST}", "--attest", fails_at="verify satellite")

    with pytest.raises(PipelineError, match="verify satellite failed"):
        attested(run, run.options.references[0])

    assert not steps(run)


def test_toolbox_login_goes_to_tools_that_push_alone() -> None:
    login = {"ghcr.io": Login("me", Secret("made-up"))}

    assert [name for name in (BUILDER, COSIGN, ORAS, SYFT, ZOT) if Toolbox({}, login).logins_of(name)] == [COSIGN, ORAS]
