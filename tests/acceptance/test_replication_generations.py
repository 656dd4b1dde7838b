"""Generations at a site: going back without the link, staying there, and following the centre again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance import artifacts
from tests.acceptance.replicating import run_place, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.replicating import Place
    from tests.acceptance.site import Site

APP, TOOL, NEW = "acme/app:v1", "acme/tool:v1", "acme/new:v1"


def two_generations(place: Place, site: Site) -> tuple[dict[str, str], dict[str, str]]:
    """Have a site follow two states: one image changes, one stays, one is new; return what each state held."""
    old = {APP: place.push(APP, "old"), TOOL: place.push(TOOL, "same")}
    place.decide({"group": old})
    assert site.sync().returncode == 0
    new = {**old, APP: place.push(APP, "new"), NEW: place.push(NEW, "only new")}
    place.decide({"group": new})
    assert site.sync().returncode == 0
    assert site.holds(*new) == new
    return old, new


def test_rollback_with_the_link_down_publishes_the_previous_generation(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old, new = two_generations(place, site)
        place.wan.reset()
        place.wan.down()

        done = site.command("rollback", "--output", "json")

        assert done.returncode == 0, done.stderr
        assert site.holds(*new) == {NEW: None, **old}
        assert place.wan.counters().connections == 0


def test_rollback_without_a_previous_generation_says_so(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        never = site.command("rollback")
        old = {APP: place.push(APP, "old")}
        place.decide({"group": old})
        site.sync()
        once = site.command("rollback")

        assert [done.returncode for done in (never, once)] == [1, 2]
        assert "no record" in never.stderr
        assert "no previous generation" in once.stderr
        assert site.holds(APP) == old


def test_rolled_back_site_stays_until_the_centre_publishes_another_state(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old, new = two_generations(place, site)
        site.command("rollback")
        place.wan.reset()

        stayed = [site.sync(), site.sync()]
        requests = place.wan.counters().requests
        held = site.holds(*new)
        newest = {APP: place.push(APP, "newest"), TOOL: new[TOOL]}
        place.decide({"group": newest})
        followed = site.sync()

        assert [run.returncode for run in (*stayed, followed)] == [0, 0, 0]
        assert held == {NEW: None, **old}
        assert requests == len(stayed)
        assert site.holds(*new) == {**newest, NEW: None}


def test_rollback_undo_follows_the_centre_again_without_bringing_a_layer_twice(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        _, new = two_generations(place, site)
        site.command("rollback")
        place.wan.reset()

        undone, again = site.command("rollback", "--undo"), site.command("rollback", "--undo")
        run = site.sync()

        assert "back where the centre is" in undone.stdout
        assert "was not rolled back" in again.stdout
        assert (run.returncode, site.holds(*new)) == (0, new)
        assert [request for request in place.wan.requests() if "/blobs/" in request and "/acme/" in request] == []


def test_rollback_taken_back_is_at_what_the_centre_says_without_the_link(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        _, new = two_generations(place, site)
        place.wan.reset()
        place.wan.down()

        done = [site.command("rollback"), site.command("rollback"), site.command("rollback", "--undo")]
        held = site.holds(*new)
        place.wan.up()
        run = site.sync()

        assert [each.returncode for each in done] == [0, 0, 0]
        assert held == new
        assert (run.returncode, site.holds(*new)) == (0, new)
        assert "was not rolled back" in site.command("rollback", "--undo").stdout


def test_site_that_went_back_and_forth_follows_the_centre_back(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old, new = two_generations(place, site)
        site.command("rollback")
        site.command("rollback", "--undo")

        place.decide({"group": old})
        run = site.sync()

        assert (run.returncode, site.holds(*new)) == (0, {NEW: None, **old})


def test_wiped_store_of_a_rolled_back_site_heals_to_what_it_went_back_to(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old, new = two_generations(place, site)
        site.command("rollback")

        site.wipe_registry()
        runs = [site.sync(), site.sync(), site.sync()]

        assert [run.returncode for run in runs] == [0, 0, 0]
        assert site.holds(*new) == {NEW: None, **old}


def test_rollback_after_the_previous_images_were_lost_touches_nothing(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        _, new = two_generations(place, site)
        site.wipe_registry()
        site.sync()

        done = site.command("rollback")

        assert done.returncode == 1
        assert APP in done.stderr
        assert site.holds(*new) == new


def test_rollback_brings_back_a_group_that_the_centre_emptied(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old = {APP: place.push(APP, "app"), TOOL: place.push(TOOL, "tool")}
        place.decide({"group": old})
        site.sync()
        place.decide({"group": {}})
        emptied = site.sync()
        gone = site.holds(*old)
        place.wan.down()

        done = site.command("rollback")

        assert (emptied.returncode, gone) == (0, dict.fromkeys(old))
        assert done.returncode == 0, done.stderr
        assert site.holds(*old) == old


@pytest.mark.slow
def test_deep_run_and_other_choices_leave_a_rolled_back_site_where_it_is(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old, new = two_generations(place, site)
        site.command("rollback")

        deep = site.command("sync", "--deep")
        site.settings["HARBOR_SATELLITE_PLATFORMS"] = "linux/amd64"
        chosen = site.sync()
        after = site.sync()

        assert [deep.returncode, chosen.returncode, after.returncode] == [0, 0, 0]
        assert site.holds(*new) == {NEW: None, **old}


def test_rollback_leaves_what_somebody_at_the_site_had_put_there(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        by_hand = artifacts.push_simple_image(site.writable, NEW, "the same at both")
        place.decide({"group": {APP: place.push(APP, "old")}})
        site.sync()
        place.decide({"group": {APP: place.push(APP, "new"), NEW: place.push(NEW, "the same at both")}})
        site.sync()

        done = site.command("rollback")

        assert done.returncode == 0, done.stderr
        assert site.holds(NEW) == {NEW: by_hand}


def test_what_somebody_at_the_site_had_put_there_is_not_deleted_after_a_rollback(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        by_hand = artifacts.push_simple_image(site.writable, NEW, "the same at both")
        same = place.push(NEW, "the same at both")
        for content in ("old", "new"):
            place.decide({"group": {APP: place.push(APP, content), NEW: same}})
            site.sync()
        site.command("rollback")
        place.decide({"group": {APP: place.push(APP, "newest")}})

        run = site.sync()

        assert (run.returncode, run.references("deleted")) == (0, [])
        assert site.holds(NEW) == {NEW: by_hand}


def test_second_run_at_the_same_time_is_told_so(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        place.decide({"group": {APP: place.push(APP, "app", 1_000_000)}})
        site.sync()
        place.wan.reset()
        place.wan.hang()
        first = site.start("sync")
        wait_for(lambda: place.wan.counters().connections > 0, first)

        said = site.refused_sync()
        back = site.command("rollback")
        place.wan.up()
        ended = first.wait(100)

        assert "another replication is running" in said
        assert (back.returncode, "another replication is running" in back.stderr) == (1, True)
        assert ended == 0
