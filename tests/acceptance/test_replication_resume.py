"""What crosses the link when it is cut and the agent is killed: each byte once; and what crosses it at rest."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.oci.digest import Digest
from tests.acceptance import artifacts, asking
from tests.acceptance.pulling import pull
from tests.acceptance.replicating import kill, run_place, until_done, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.site import Site

APP, OTHER = "acme/app:v1", "acme/other:v1"
LARGE_BYTES = 64 * 1024 * 1024
LINK_BYTES_PER_SECOND = 24_000_000
STATE_BYTES = 20_000  # of states and HTTP heads of one run, at most
WASTE = 0.08
"""What was on its way at a cut or a kill is read again: more of it on a busy machine."""


def assert_pulled(site: Site, **digests: str) -> None:
    with asking.client(base_url=site.url, timeout=60.0) as client:
        for repository, digest in digests.items():
            assert pull(client, f"acme/{repository}", "v1") == digest


@pytest.mark.acceptance("A29")
def test_layer_whose_run_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        digest = artifacts.push_large_image(place.central, APP, LARGE_BYTES)
        place.decide({"group": {APP: digest}})
        place.wan.shape(bytes_per_second=LINK_BYTES_PER_SECOND)

        run = site.start("sync")
        wait_for(lambda: place.wan.counters().bytes_to_client > LARGE_BYTES // 2, run)
        kill(run)
        until_done(site)

        assert_pulled(site, app=digest)
        assert place.wan.counters().bytes_to_client <= LARGE_BYTES * (1 + WASTE)


@pytest.mark.acceptance("A29")
def test_layer_over_ten_cuts_and_a_kill_crosses_the_link_once(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        digest = artifacts.push_large_image(place.central, APP, LARGE_BYTES)
        place.decide({"group": {APP: digest}})
        place.wan.shape(bytes_per_second=LINK_BYTES_PER_SECOND)
        chosen = random.Random(29)  # noqa: S311 - moments, no secrets
        place.wan.cut_at(*sorted(chosen.randrange(1_000_000, LARGE_BYTES) for _ in range(10)))

        run = site.start("sync")
        wait_for(lambda: place.wan.counters().bytes_to_client > LARGE_BYTES * 0.7, run)
        kill(run)
        until_done(site)

        assert_pulled(site, app=digest)
        assert place.wan.counters().bytes_to_client <= LARGE_BYTES * (1 + WASTE)


@pytest.mark.acceptance("A29")
def test_run_killed_after_a_layer_came_takes_it_from_the_site(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        digest = artifacts.push_large_image(place.central, APP, 4_000_000, 12_000_000)
        place.decide({"group": {APP: digest}})
        place.wan.shape(bytes_per_second=6_000_000)
        layers = artifacts.layers_of(place.central, APP)

        run = site.start("sync")
        wait_for(lambda: site.registry.blob_head("acme/app", Digest.parse(layers[0])) is not None, run)
        kill(run)
        until_done(site)

        assert_pulled(site, app=digest)
        assert place.wan.counters().bytes_to_client <= 16_000_000 * (1 + WASTE) + 2 * STATE_BYTES


def test_layer_that_two_images_share_crosses_the_link_once_in_any_order_of_runs(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        both = {name: artifacts.push_oci_image(place.central, name, name) for name in (APP, OTHER)}
        common = set(artifacts.layers_of(place.central, APP)) & set(artifacts.layers_of(place.central, OTHER))
        place.decide({"group": {APP: both[APP]}})
        until_done(site)

        place.decide({"group": both})
        run = until_done(site)

        asked = [one for one in place.wan.requests() if one.startswith("GET ") and any(item in one for item in common)]
        assert (len(common), len(asked)) == (1, 1)
        assert run.references("copied") == [OTHER]
        assert site.holds(*both) == both


@pytest.mark.acceptance("A30")
def test_run_without_a_change_asks_the_source_once(tmp_path: Path) -> None:
    names = [f"acme/app-{number}:v1" for number in range(20)]
    with run_place(tmp_path) as (place, site):
        place.decide({"group": {name: place.push(name, name, 2000) for name in names}})
        until_done(site)
        place.wan.reset()

        runs = [site.sync() for _ in range(2)]

        counters = place.wan.counters()
        assert [run.returncode for run in runs] == [0, 0]
        assert all(len(run.references("kept")) == len(names) for run in runs)
        assert [one.partition(" ")[0] for one in place.wan.requests()] == ["HEAD", "HEAD"]
        assert counters.bytes_to_client + counters.bytes_from_client < len(runs) * 1500


@pytest.mark.acceptance("A11")
@pytest.mark.parametrize("loss", ["everything", "a tag", pytest.param("a manifest", marks=pytest.mark.slow)])
def test_damaged_local_store_converges_although_nothing_changed(tmp_path: Path, loss: str) -> None:
    with run_place(tmp_path) as (place, site):
        images = {name: place.push(name, name) for name in (APP, OTHER)}
        place.decide({"group": images})
        until_done(site)

        if loss == "everything":
            site.wipe_registry()
        else:
            site.writable.manifest_delete("acme/app", "v1" if loss == "a tag" else images[APP])
        run = site.sync()

        assert (run.returncode, site.holds(*images)) == (0, images)
        assert_pulled(site, app=images[APP], other=images[OTHER])


@pytest.mark.acceptance("A11")
def test_lost_blob_is_found_by_a_deep_run(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        images = {APP: place.push(APP, "app")}
        place.decide({"group": images})
        until_done(site)
        site.stop_registry()
        for path in artifacts.blob_files(site.folder / "registry", artifacts.layers_of(place.central, APP)[0]):
            path.unlink()
        site.start_registry()

        done = site.command("sync", "--deep", "--output", "json")

        assert done.returncode == 0, done.stderr
        assert_pulled(site, app=images[APP])
