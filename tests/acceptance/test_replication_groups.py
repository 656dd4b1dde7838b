"""Groups are published together or image by image; what is bad or missing holds up nobody but itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance import artifacts
from tests.acceptance.replicating import run_place, run_scheduled, until_done

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.acceptance.replicating import Place
    from tests.acceptance.site import Site

NAMES = [f"acme/app-{number}:v1" for number in range(6)]
LAYER_BYTES = 300_000
NOWHERE = f"sha256:{'1' * 64}"


def pushed(place: Place, content: str) -> dict[str, str]:
    return {name: artifacts.push_large_image(place.central, name, LAYER_BYTES + len(content)) for name in NAMES}


def cut_off_half_way(place: Place, site: Site) -> tuple[int, dict[str, Any]]:
    """Replicate over a link that goes down for good when half of the layers are over."""
    place.wan.reset()
    place.wan.shape(bytes_per_second=2_000_000)
    site.settings["HARBOR_SATELLITE_IMAGE_WORKERS"] = "1"
    run = site.start("sync", "--output", "json")
    while run.returncode is None:
        if place.wan.counters().bytes_to_client > LAYER_BYTES * len(NAMES) // 2:
            place.wan.down()
            break
    status = run.wait(120)
    place.wan.up()
    place.wan.shape()
    return status, last_json(run.log)


def last_json(log: Path) -> dict[str, Any]:
    """Find what the last command said among its log lines."""
    text = log.read_text()
    document: dict[str, Any] = json.loads(text[text.rindex('{\n  "copied"') : text.rindex("}") + 1])
    return document


def references(said: dict[str, Any], action: str) -> set[str]:
    return {item["reference"] for item in said[action]}


def test_link_that_dies_half_way_moves_no_tag_and_the_next_run_moves_all(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old = pushed(place, "")
        place.decide({"group": old})
        until_done(site)
        new = pushed(place, "new")
        place.decide({"group": new})

        status, said = cut_off_half_way(place, site)
        held = site.holds(*NAMES)
        run = site.sync()

        assert status == 1
        assert references(said, "staged")
        assert references(said, "failed")
        assert references(said, "staged") | references(said, "failed") == set(NAMES)
        assert held == old
        assert (run.returncode, site.holds(*NAMES)) == (0, new)


def test_group_that_publishes_each_image_moves_what_came(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old = pushed(place, "")
        place.decide({"group": old}, policy={"publish": "each"})
        until_done(site)
        new = pushed(place, "new")
        place.decide({"group": new}, policy={"publish": "each"})

        status, said = cut_off_half_way(place, site)
        held = site.holds(*NAMES)
        run = site.sync()

        came = references(said, "copied")
        assert status == 1
        assert came
        assert came < set(NAMES)
        assert held == {name: new[name] if name in came else old[name] for name in NAMES}
        assert (run.returncode, site.holds(*NAMES)) == (0, new)


@pytest.mark.slow
def test_rollback_after_a_half_published_generation_brings_back_all_of_the_one_before(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old = pushed(place, "")
        place.decide({"group": old}, policy={"publish": "each"})
        until_done(site)
        place.decide({"group": pushed(place, "new")}, policy={"publish": "each"})
        cut_off_half_way(place, site)
        until_done(site)

        done = site.command("rollback")

        assert done.returncode == 0, done.stderr
        assert site.holds(*NAMES) == old


def test_group_that_lacks_an_image_does_not_hold_up_another_group(tmp_path: Path) -> None:
    whole = {"beta/app:v1": "whole"}
    with run_place(tmp_path) as (place, site):
        old = pushed(place, "") | {name: place.push(name, "old") for name in whole}
        first = {"alpha": {name: old[name] for name in NAMES}, "beta": {name: old[name] for name in whole}}
        place.decide(first)
        until_done(site)
        new = pushed(place, "new") | {name: place.push(name, "new") for name in whole}
        second = {"alpha": {name: new[name] for name in NAMES}, "beta": {name: new[name] for name in whole}}
        place.decide(second, {"alpha": {"registry": "http://127.0.0.1:1"}})

        run = site.sync()

        assert (run.returncode, run.references("failed")) == (1, NAMES)
        assert site.holds(*whole, *NAMES) == {name: (new if name in whole else old)[name] for name in (*whole, *NAMES)}


def drop(place: Place, reference: str) -> Callable[[], None]:
    """Lose an image's layer at the source; returns what puts it back."""
    layer = artifacts.layers_of(place.central, reference)[0]
    files = {path: path.read_bytes() for path in artifacts.blob_files(place.source.root, layer)}
    for path in files:
        path.unlink()

    def put_back() -> None:
        for path, content in files.items():
            path.write_bytes(content)

    return put_back


def test_missing_image_is_set_aside_and_not_asked_for_in_each_scheduled_run(tmp_path: Path) -> None:
    missing = "acme/missing:v1"
    with run_place(tmp_path) as (place, site):
        good = {name: place.push(name, name) for name in NAMES[:2]}
        place.decide({"group": {**good, missing: NOWHERE}})

        first = run_scheduled(site)
        held = site.holds(*good, missing)
        place.wan.reset()
        later = [run_scheduled(site) for _ in range(3)]

        assert (first.references("copied"), first.references("failed")) == (sorted(good), [missing])
        assert held == {**good, missing: None}
        assert [run.references("quarantined") for run in later] == [[missing]] * 3
        assert [one.partition(" ")[0] for one in place.wan.requests()] == ["HEAD"] * 3


def test_quarantined_image_is_left_alone_while_the_rest_of_a_new_state_is_brought(tmp_path: Path) -> None:
    missing = "acme/missing:v1"
    with run_place(tmp_path) as (place, site):
        first = {NAMES[0]: place.push(NAMES[0], "old"), missing: NOWHERE}
        place.decide({"group": first})
        run_scheduled(site)
        new = {NAMES[0]: place.push(NAMES[0], "new"), missing: NOWHERE}
        place.decide({"group": new})
        place.wan.reset()

        run = run_scheduled(site)

        assert (run.references("copied"), run.references("quarantined")) == ([NAMES[0]], [missing])
        assert site.holds(*new) == {**new, missing: None}
        assert [one for one in place.wan.requests() if "acme/missing" in one] == []


def test_image_with_two_tags_in_quarantine_is_not_called_kept(tmp_path: Path) -> None:
    missing = ("acme/missing:v1", "acme/missing:latest")
    with run_place(tmp_path) as (place, site):
        place.decide({"group": {NAMES[0]: place.push(NAMES[0], "good"), **dict.fromkeys(missing, NOWHERE)}})
        run_scheduled(site)

        run = run_scheduled(site)

        assert run.references("kept") == [NAMES[0]]


def test_sync_by_hand_tries_a_quarantined_image_at_once(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        images = {name: artifacts.push_large_image(place.central, name, 5000) for name in NAMES[:2]}
        put_back = drop(place, NAMES[0])
        place.decide({"group": images})
        first = run_scheduled(site)
        put_back()

        scheduled = run_scheduled(site)
        by_hand = site.sync()

        assert first.references("failed") == [NAMES[0]]
        assert scheduled.references("quarantined") == [NAMES[0]]
        assert (by_hand.returncode, site.holds(*images)) == (0, images)


@pytest.mark.acceptance("A7")
def test_image_that_fails_stays_as_it_was_and_may_be_gone_back_from(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old = {name: artifacts.push_large_image(place.central, name, 5000) for name in NAMES[:2]}
        place.decide({"group": old})
        until_done(site)
        new = {name: artifacts.push_large_image(place.central, name, 6000) for name in NAMES[:2]}
        drop(place, NAMES[0])
        place.decide({"group": new})

        run = site.sync()
        between = site.holds(*new)
        done = site.command("rollback")

        assert run.returncode == 1
        assert between == {NAMES[0]: old[NAMES[0]], NAMES[1]: new[NAMES[1]]}
        assert done.returncode == 0, done.stderr
        assert site.holds(*old) == old


def test_update_that_came_to_nothing_at_first_keeps_what_stood_before_it(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        generations = [{name: place.push(name, f"{name} {number}") for name in NAMES[:2]} for number in range(3)]
        for images in generations[:2]:
            place.decide({"group": images})
            until_done(site)
        place.decide({"group": generations[2]})
        put_back = [drop(place, name) for name in NAMES[:2]]
        failed = site.sync()
        for each in put_back:
            each()
        until_done(site)

        done = site.command("rollback")

        assert failed.returncode == 1
        assert done.returncode == 0, done.stderr
        assert site.holds(*NAMES[:2]) == generations[1]
