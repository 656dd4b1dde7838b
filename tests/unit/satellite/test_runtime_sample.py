from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo.images import AMD64, ARM64, layer, push_artifact, push_image, push_index, tag_image
from harbor_satellite.errors import InvalidInputError, NotFoundError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.satellite.runtime_sample import TAG_PREFIX, choose_image, given_tag, tagged_sample
from harbor_satellite.satellite.runtime_verify import Puller, names_to_try
from harbor_satellite.state.desired import LocalTag
from tests.unit.satellite.site import Site, WithoutTagDeletion

if TYPE_CHECKING:
    from pathlib import Path

APP = "acme/app"
NAME = LocalTag(APP, "v1")


def push(site: Site, platform: Platform = AMD64, name: LocalTag = NAME) -> Digest:
    image = push_image(site.local, name.repository, platform, [layer("app", 100)])
    tag_image(site.local, name.repository, name.tag, image)
    return image.digest


def test_choose_image_passes_over_what_no_runtime_here_can_pull(site: Site) -> None:
    artifact, foreign, gone = LocalTag("acme/chart", "v1"), LocalTag("acme/arm", "v1"), LocalTag("acme/gone", "v1")
    push_artifact(site.local, artifact.repository, artifact.tag)
    push(site, ARM64, foreign)
    push(site)

    assert choose_image(site.local, [gone, artifact, foreign, NAME], AMD64) == NAME
    assert choose_image(site.local, [NAME, foreign], ARM64) == foreign
    with pytest.raises(NotFoundError, match="linux/arm64"):
        choose_image(site.local, [NAME, artifact], ARM64)


def test_choose_image_of_an_index_goes_by_its_children(site: Site) -> None:
    children = [push_image(site.local, APP, platform, [layer(str(platform), 100)]) for platform in (AMD64, ARM64)]
    with_variant = replace(children[1], platform=Platform("linux", "arm64", "v8"))
    push_index(site.local, APP, "v1", [children[0], with_variant])

    assert choose_image(site.local, [NAME], ARM64) == NAME
    with pytest.raises(NotFoundError):
        choose_image(site.local, [NAME], Platform("linux", "s390x"))


def test_tagged_sample_has_a_name_of_its_own_that_goes_again(site: Site) -> None:
    digest = push(site)
    push(site, name=LocalTag(APP, f"{TAG_PREFIX}killed"))

    with tagged_sample(site.local, NAME) as sample:
        during = site.local.tag_list(APP)
        found = site.local.manifest_head(APP, sample.reference[1:])

    assert sample.is_only_here
    assert during == tuple(sorted([sample.reference[1:], "v1"]))
    assert found is not None
    assert found.digest == digest
    assert site.local.tag_list(APP) == ("v1",)


def test_tagged_sample_at_a_registry_that_deletes_no_tags_uses_one_tag_for_ever(site: Site) -> None:
    with WithoutTagDeletion(site.folder / "manifests-only", "local.test") as site.local:
        digest = push(site)

        references = set()
        for _ in range(2):
            with tagged_sample(site.local, NAME) as sample:
                references.add(sample.reference)

        assert len(references) == 1
        assert site.local.manifest_head(APP, str(digest)) is not None


def test_tagged_sample_of_nothing_is_not_found(site: Site) -> None:
    with pytest.raises(NotFoundError, match="acme/app:v1"), tagged_sample(site.local, NAME):
        pass


def test_given_tag_reads_tags_and_digests() -> None:
    digest = str(Digest.of(b""))

    assert given_tag("acme/app:v1") == NAME
    assert given_tag(f"acme/app@{digest}") == LocalTag(APP, digest)


@pytest.mark.parametrize("text", ["acme/app", "acme/app:", "acme/app@v1", "UPPER:v1", "--help:v1", "a b:v1"])
def test_given_tag_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        given_tag(text)


@pytest.mark.parametrize(
    ("runtime", "repository", "names"),
    [
        ("podman", "acme/app", ("satellite.zot", "docker.io", "quay.io")),
        ("docker", "acme/app", ("satellite.zot", "docker.io")),
        ("podman", "alpine", ("satellite.zot", "quay.io")),
    ],
    ids=["all that are mirrored", "docker has mirrors for Docker Hub only", "one word means library/… there"],
)
def test_names_to_try(site: Site, runtime: str, repository: str, names: tuple[str, ...]) -> None:
    name = LocalTag(repository, "v1")
    push(site, name=name)

    with tagged_sample(site.local, name) as sample:
        assert names_to_try(runtime, ("docker.io", "quay.io"), sample) == names


def test_pull_that_takes_too_long_is_killed_with_its_children(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(site)
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\necho trying >&2\nsleep 60 & wait\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    with tagged_sample(site.local, NAME) as sample:
        result = Puller("", seconds=0.2).pull("podman", "satellite.zot", sample)

    assert result.is_tried
    assert result.problem == "nothing within 0.2 s: trying"
    assert 0.2 <= result.seconds < 10
