"""The real edge worker follows the centre, and the centre knows how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance import artifacts
from tests.acceptance.centre import wait_until
from tests.acceptance.site import Site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.centre import Centre


@pytest.mark.acceptance("A28")
def test_status_tells_applied_state_lag_and_bytes(centre: Centre, name: str, tmp_path: Path) -> None:
    central, reference, more = centre.central.client, f"{name}/app:v1", f"{name}/more:v1"
    first = artifacts.push_simple_image(central, reference, reference)
    centre.put_group(name, {reference: first})
    token = centre.add_satellite(name, [name])
    with Site(name, tmp_path / "site", centre) as site:
        with site.worker(token):
            fresh = centre.wait_status(name, lambda status: _is_on(status, 1), "the site in step with one image")
        fresh_digest = centre.state_digest(name)
        second = artifacts.push_simple_image(central, more, more)
        centre.put_group(name, {reference: first, more: second})
        centre.wait_published(name, {name: {reference: first, more: second}})
        behind = centre.status(name)
        with site.worker():
            caught_up = centre.wait_status(name, lambda status: _is_on(status, 2), "the site in step with two images")

        assert fresh["latest_state_digest"] == fresh["wanted_state_digest"] == fresh_digest
        assert (fresh["lag_seconds"], fresh["image_count"], fresh["failures"]) == (0, 1, [])
        assert fresh["bytes_from_source"] > artifacts.LAYER_BYTES
        assert behind is not None
        assert (behind["in_step"], behind["latest_state_digest"]) == (False, fresh_digest)
        assert behind["wanted_state_digest"] == caught_up["latest_state_digest"] == centre.state_digest(name)
        assert behind["lag_seconds"] > 0
        assert (caught_up["lag_seconds"], caught_up["image_count"], caught_up["copied_count"]) == (0, 2, 1)
        assert site.holds(reference, more) == {reference: first, more: second}
        held = {item["reference"] for item in centre.api.get(f"/api/satellites/{name}/images").json()}
        assert held == {reference, more}


@pytest.mark.acceptance("A1")
def test_running_worker_follows_a_moved_tag_and_a_removed_image(centre: Centre, name: str, tmp_path: Path) -> None:
    central, moved, removed = centre.central.client, f"{name}/app:stable", f"{name}/old:v1"
    old = {item: artifacts.push_simple_image(central, item, f"{item}-1") for item in (moved, removed)}
    centre.put_group(name, dict.fromkeys(old, ""))
    token = centre.add_satellite(name, [name])
    with Site(name, tmp_path / "site", centre) as site, site.worker(token):
        wait_until(lambda: site.holds(*old), lambda held: held == old, "the first images at the site")

        new = artifacts.push_simple_image(central, moved, f"{moved}-2")
        centre.put_group(name, {moved: ""})

        changed = {moved: new, removed: None}
        wait_until(lambda: site.holds(*old), lambda held: held == changed, "the site to follow the change")
        status = centre.wait_status(name, lambda status: status["in_step"], "the site in step")
        assert (status["copied_count"], status["deleted_count"], status["image_count"]) == (1, 1, 1)


@pytest.mark.slow
@pytest.mark.acceptance("A13")
def test_report_names_what_could_not_be_had_and_why(centre: Centre, name: str, tmp_path: Path) -> None:
    good, bad, nowhere = f"{name}/good:v1", f"{name}/bad:v1", f"sha256:{'1' * 64}"
    digest = artifacts.push_simple_image(centre.central.client, good, good)
    artifacts.push_simple_image(centre.central.client, bad, bad)
    centre.put_group(name, {good: digest, bad: nowhere})
    token = centre.add_satellite(name, [name])

    with Site(name, tmp_path / "site", centre) as site, site.worker(token):
        status = centre.wait_status(name, lambda status: bool(status["failures"]), "a report of the failure")

        assert status["in_step"] is False
        ((reference, reason),) = [(failure["reference"], failure["reason"]) for failure in status["failures"]]
        assert reference == bad
        assert nowhere in reason
        assert site.holds(good, bad) == {good: digest, bad: None}


def _is_on(status: dict[str, Any], images: int) -> bool:
    """Tell whether the site is in step; at first it may be, with a state that names no group's images yet."""
    return bool(status["in_step"]) and status["image_count"] == images
