"""What a run is refused for before anything is built, and what is decided once for all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ci.errors import UsageError
from ci.options import parse
from ci.run import prepare
from tests.unit.ci.checkouts import git, make_checkout, make_source

if TYPE_CHECKING:
    from pathlib import Path

    from ci.run import Run

DIGEST = "sha256:" + "1" * 64
KEY = {"COSIGN_PRIVATE_KEY": "made-up"}
LOGIN = {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "made-up"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    source = make_source(tmp_path)
    (source / "CHANGELOG.md").write_text("## [1.2.3]\n\n- All.\n")
    (source / "cosign.pub").write_text("-----BEGIN PUBLIC KEY-----\n")
    return make_checkout(source)


def prepared(checkout: Path, *argv: str, environment: dict[str, str] | None = None) -> Run:
    given = [argv[0], "--source", str(checkout), *argv[1:]]
    if argv[0] not in {"build", "check", "test"}:
        given += ["--public-key", str(checkout / "cosign.pub")]
    return prepare(parse(given), KEY | (environment or {}))


def test_prepare_sbom_attest_of_a_tag_is_refused(checkout: Path) -> None:
    tag = "ghcr.io/acme/satellite:1.2.3"

    with pytest.raises(UsageError, match=r"satellite:1\.2\.3 is a tag, which may move"):
        prepared(checkout, "sbom", tag, "--attest")

    assert prepared(checkout, "sbom", tag).options.references[0].tag == "1.2.3"
    assert prepared(checkout, "sbom", f"{tag}@{DIGEST}", "--attest").options.attest


def test_prepare_platform_of_one_image_leaves_the_other_out(checkout: Path) -> None:
    run = prepared(checkout, "build", "--platform", "linux/s390x")

    assert run.options.images == ("satellite",)
    assert run.platforms == {"satellite": ("linux/s390x",)}


@pytest.mark.parametrize(
    "argv",
    [
        ("build", "--platform", "linux/s390x", "--image", "ground-control"),
        ("release", "--dry-run", "--platform", "linux/s390x", "--tag", "v1.2.3", "--registry", "ghcr.io/acme"),
    ],
    ids=["wanted-image", "release-of-all-images"],
)
def test_prepare_platform_that_an_image_has_to_be_for_is_refused(checkout: Path, argv: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="ground-control is not built for linux/s390x"):
        prepared(checkout, *argv)


def test_prepare_staging_tag_is_decided_before_the_run_writes_into_the_checkout(checkout: Path) -> None:
    git(checkout, "tag", "v1.2.3")

    run = prepared(
        checkout, "release", "--tag", "v1.2.3", "--registry", "ghcr.io/acme", "--output", str(checkout / "files")
    )

    assert run.staging == f"sha-{git(checkout, 'rev-parse', 'HEAD')[:12]}"


def test_prepare_publish_of_what_is_not_committed_is_refused(checkout: Path) -> None:
    (checkout / "new.txt").write_text("x")

    with pytest.raises(UsageError, match="commit the changes, then publish"):
        prepared(checkout, "publish", "--registry", "ghcr.io/acme", "--tag", "1")


def test_prepare_login_of_one_registry_is_not_shown_to_others(checkout: Path) -> None:
    references = [f"{registry}/acme/satellite@{DIGEST}" for registry in ("a.example", "b.example")]

    with pytest.raises(UsageError, match=r"named are a\.example, b\.example"):
        prepared(checkout, "sign", *references, environment=LOGIN)

    assert set(prepared(checkout, "sign", references[0], environment=LOGIN).toolbox.logins) == {"a.example"}


@pytest.mark.parametrize("registry", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_prepare_release_to_docker_hub_has_no_place_for_the_chart(checkout: Path, registry: str) -> None:
    release = ("release", "--dry-run", "--tag", "v1.2.3", "--registry")

    with pytest.raises(UsageError, match=r"acme/charts/harbor-satellite: Docker Hub takes NAMESPACE/NAME alone"):
        prepared(checkout, *release, f"{registry}/acme")

    assert prepared(checkout, *release, "ghcr.io/acme").options.verb == "release"


def test_prepare_publish_to_docker_hub_has_place_for_images_of_a_namespace(checkout: Path) -> None:
    publish = ("publish", "--tag", "1", "--registry")

    assert prepared(checkout, *publish, "docker.io/acme").staging
    with pytest.raises(UsageError, match="acme/deep/satellite: Docker Hub takes"):
        prepared(checkout, *publish, "docker.io/acme/deep")
