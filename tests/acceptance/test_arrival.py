"""What was published at the centre is at the site, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.oci import media_types
from harbor_satellite.oci.digest import Digest
from tests.acceptance import artifacts
from tests.acceptance.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.acceptance.centre import Centre


@dataclass(frozen=True)
class Arrived:
    """A site that replicated a group with one artifact of each kind."""

    centre: Centre
    site: Site
    digests: dict[str, str]
    """kind → digest at the centre"""
    signature: str

    def repository(self, kind: str) -> str:
        return f"{self.site.name}/{kind}"


@pytest.fixture(scope="module")
def arrived(
    centre: Centre, tmp_path_factory: pytest.TempPathFactory, unique: Callable[[str], str]
) -> Iterator[Arrived]:
    name, central = unique("every-kind"), centre.central.client
    digests = {
        kind: push(central, f"{name}/{kind}:v1", f"{name}-{kind}")
        for kind, push in {
            "index": artifacts.push_oci_index,
            "oci": artifacts.push_oci_image,
            "docker": artifacts.push_docker_image,
            "docker-list": artifacts.push_docker_list,
            "oras": artifacts.push_oras_artifact,
        }.items()
    }
    signature = artifacts.push_signature(central, f"{name}/oci:v1", digests["oci"])
    wanted = {f"{name}/{kind}:v1": digest for kind, digest in digests.items()}
    centre.put_group(name, wanted)
    token = centre.add_satellite(name, [name])
    with Site(name, tmp_path_factory.mktemp(name) / "site", centre) as site:
        assert site.register(token).returncode == 0
        run = site.follow({name: wanted})
        assert (run.returncode, run.references("copied")) == (0, sorted(wanted)), run.log
        yield Arrived(centre, site, digests, signature)


@pytest.mark.acceptance("A1")
def test_one_time_token_is_all_that_a_site_needs_to_hold_its_images(centre: Centre, name: str, tmp_path: Path) -> None:
    image, index = f"{name}/app:v1", f"{name}/multi:v1"
    central = centre.central.client
    digests = {
        image: artifacts.push_simple_image(central, image, name),
        index: artifacts.push_oci_index(central, index, name),
    }
    centre.put_group(name, dict.fromkeys(digests, ""))
    token = centre.add_satellite(name, [name])

    with Site(name, tmp_path / "site", centre) as site, site.worker(token):
        centre.wait_status(name, lambda status: status["in_step"] and status["image_count"] == 2, "the site in step")

        assert site.holds(*digests) == digests
        for reference, digest in digests.items():
            repository = reference.partition(":")[0]
            artifacts.assert_arrived_identical(central, site.registry, repository, digest)


@pytest.mark.acceptance("A4")
def test_index_arrives_byte_identical_with_every_platform(arrived: Arrived) -> None:
    central, local = arrived.centre.central.client, arrived.site.registry
    repository, digest = arrived.repository("index"), arrived.digests["index"]

    compared = artifacts.assert_arrived_identical(central, local, repository, digest)

    assert compared == 1 + len(artifacts.PLATFORMS) * 4  # the index; for each platform manifest, config and two layers
    assert artifacts.digest_at(local, f"{repository}:v1") == digest


@pytest.mark.acceptance("A5")
@pytest.mark.parametrize(
    ("kind", "media_type"),
    [
        pytest.param("oci", media_types.OCI_MANIFEST, id="OCI-image"),
        pytest.param("docker", media_types.DOCKER_MANIFEST, id="Docker-schema-2-image"),
        pytest.param("docker-list", media_types.DOCKER_INDEX, id="Docker-manifest-list"),
        pytest.param("oras", media_types.OCI_MANIFEST, id="ORAS-artifact"),
    ],
)
def test_artifact_is_pulled_at_the_site_by_the_digest_it_had_at_the_centre(
    arrived: Arrived, kind: str, media_type: str
) -> None:
    repository, digest = arrived.repository(kind), arrived.digests[kind]

    artifacts.assert_arrived_identical(arrived.centre.central.client, arrived.site.registry, repository, digest)

    assert artifacts.digest_at(arrived.site.registry, f"{repository}:v1") == digest
    assert arrived.site.registry.manifest_get(repository, digest).media_type == media_type


@pytest.mark.acceptance("A5")
def test_signature_arrives_with_what_it_signs(arrived: Arrived) -> None:
    repository, signed = arrived.repository("oci"), Digest.parse(arrived.digests["oci"])

    found = arrived.site.registry.referrer_list(repository, signed)

    assert [(str(item.digest), item.artifact_type) for item in found] == [(arrived.signature, artifacts.SIGNATURE_TYPE)]
    artifacts.assert_arrived_identical(
        arrived.centre.central.client, arrived.site.registry, repository, arrived.signature
    )
