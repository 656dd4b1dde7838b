"""A site that wants some platforms of an index brings those, keeps the index's digest, and may want more later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.registry.client import HttpRegistry
from tests.acceptance import artifacts, asking
from tests.acceptance.pulling import PullError, pull
from tests.acceptance.replicating import local_registry, run_place, until_done

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.replicating import Place

APP = "acme/app:v1"
PLATFORMS = "HARBOR_SATELLITE_PLATFORMS"
AMD64, ARM64, ARM, S390X = range(4)


def children_of(place: Place, digest: str) -> list[str]:
    document = json.loads(place.central.manifest_get("acme/app", digest).raw)
    return [child["digest"] for child in document["manifests"]]


def pulled(url: str, *references: str) -> list[str]:
    """Pull these of the application's references; return what could be had, whole."""
    had = []
    with asking.client(base_url=url, timeout=60.0) as client:
        for reference in references:
            try:
                had.append(pull(client, "acme/app", reference))
            except PullError:
                continue
    return had


def blobs_fetched(place: Place) -> int:
    return len({one for one in place.wan.requests() if one.startswith("GET ") and "/acme/app/blobs/" in one})


KINDS = ["embedded", pytest.param("zot", marks=pytest.mark.zot)]


@pytest.mark.parametrize("kind", KINDS)
def test_wanted_platform_comes_alone_and_the_index_keeps_its_digest(tmp_path: Path, kind: str) -> None:
    with run_place(tmp_path) as (place, site), local_registry(site, tmp_path, kind) as url:
        index = artifacts.push_oci_index(place.central, APP, "app")
        children = children_of(place, index)
        place.decide({"group": {APP: index}})
        site.settings[PLATFORMS] = "linux/amd64"

        run = site.sync()
        place.wan.reset()
        again = site.sync()

        with HttpRegistry(url) as registry:
            assert (run.returncode, artifacts.digest_at(registry, APP)) == (0, index)
        assert pulled(url, *children) == [children[AMD64]]
        # The layer that all share, the platform's own, and its config.
        assert run.said["bytes_from_source"] < 3.5 * artifacts.LAYER_BYTES
        assert (again.returncode, place.wan.counters().requests) == (0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_platform_that_is_wanted_later_is_topped_up(tmp_path: Path, kind: str) -> None:
    with run_place(tmp_path) as (place, site), local_registry(site, tmp_path, kind) as url:
        index = artifacts.push_oci_index(place.central, APP, "app")
        children = children_of(place, index)
        place.decide({"group": {APP: index}})
        site.settings[PLATFORMS] = "linux/amd64"
        until_done(site)
        place.wan.reset()

        site.settings[PLATFORMS] = "linux/amd64,linux/arm/v7"
        until_done(site)
        topped_up = blobs_fetched(place)
        two = pulled(url, *children)
        del site.settings[PLATFORMS]
        until_done(site)

        assert topped_up == 2  # its config and its own layer
        assert two == [children[AMD64], children[ARM]]
        assert pulled(url, *children, "v1") == [*children, index]


def test_registry_that_takes_no_sparse_index_gets_every_platform(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site), local_registry(site, tmp_path, "cncf") as url:
        index = artifacts.push_oci_index(place.central, APP, "app")
        place.decide({"group": {APP: index}})
        site.settings[PLATFORMS] = "linux/amd64"

        run = site.sync()

        assert run.returncode == 0, run.log
        assert pulled(url, "v1", *children_of(place, index)) == [index, *children_of(place, index)]


def test_group_s_own_platforms_come_besides_none_of_another_group_s(tmp_path: Path) -> None:
    other = "acme/other:v1"
    with run_place(tmp_path) as (place, site):
        index = artifacts.push_oci_index(place.central, APP, "app")
        whole = artifacts.push_oci_index(place.central, other, "other")
        place.decide(
            {"narrow": {APP: index}, "wide": {other: whole}}, {"narrow": {"policy": {"platforms": ["linux/s390x"]}}}
        )

        run = site.sync()

        assert run.returncode == 0, run.log
        assert pulled(site.url, *children_of(place, index)) == [children_of(place, index)[S390X]]
        artifacts.assert_arrived_identical(place.central, site.registry, "acme/other", whole)


def test_site_with_some_platforms_goes_back_and_heals(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        site.settings[PLATFORMS] = "linux/amd64"
        old = artifacts.push_oci_index(place.central, APP, "old")
        place.decide({"group": {APP: old}})
        until_done(site)
        new = artifacts.push_oci_index(place.central, APP, "new")
        place.decide({"group": {APP: new}})
        until_done(site)
        place.wan.down()

        back = site.command("rollback")
        held = site.holds(APP)
        place.wan.up()
        site.wipe_registry()
        until_done(site)

        assert back.returncode == 0, back.stderr
        assert held == site.holds(APP) == {APP: old}
        assert pulled(site.url, *children_of(place, old)) == [children_of(place, old)[AMD64]]
