"""``edge why``: each decision is named with its rule, what stands at the site, and what happens next."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from harbor_satellite.oci.digest import Digest
from tests.acceptance import artifacts
from tests.acceptance.replicating import run_place, run_scheduled, until_done

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.site import Site

APP, OTHER = "acme/app:v1", "acme/other:v1"
NOWHERE = f"sha256:{'1' * 64}"


def why(site: Site, image: str) -> dict[str, Any]:
    """Ask about an image of which there is one name."""
    done = site.command("why", image, "--output", "json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    document: dict[str, Any] = found
    return document


def assert_said(site: Site, found: dict[str, Any]) -> None:
    """The text for people must name what the JSON does."""
    text = site.command("why", found["reference"]).stdout
    for key in ("reference", "action", "rule", "reason", "here", "wanted", "previous", "retry_at"):
        assert found[key] in text, f"{key}={found[key]!r} is not said in:\n{text}"


def test_why_of_what_was_copied_and_then_kept(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        app, other, moved = place.push(APP, "app"), place.push(OTHER, "old"), place.push(OTHER, "new")
        place.decide({"group": {APP: app, OTHER: other}})
        until_done(site)
        first = why(site, APP)
        place.decide({"group": {APP: app, OTHER: moved}})
        until_done(site)

        kept, changed = why(site, APP), why(site, OTHER)

        assert_said(site, changed)
        assert (first["action"], first["rule"], first["groups"]) == ("copied", "absent", ["group"])
        assert (kept["action"], kept["rule"], kept["here"], kept["wanted"]) == ("kept", "wanted", app, app)
        assert (changed["action"], changed["rule"], changed["here"]) == ("copied", "moved", moved)
        assert changed["previous"] == other


def test_why_takes_every_form_of_a_name(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        digest = place.push(APP, "app")
        place.decide({"group": {APP: digest}})
        until_done(site)

        for form in ("acme/app", "acme/app:v1", "registry.example:5000/acme/app:v1"):
            assert why(site, form)["here"] == digest


def test_why_takes_the_digest_of_an_image_that_is_wanted_by_its_tag(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        digest = place.push(APP, "app")
        place.decide({"group": {APP: digest}})
        until_done(site)

        assert why(site, f"acme/app@{digest}")["here"] == digest


def test_why_of_an_image_that_failed_names_when_it_is_tried_again(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        place.decide({"group": {APP: place.push(APP, "app"), OTHER: NOWHERE}})
        run_scheduled(site)
        failed = why(site, OTHER)
        place.decide({"group": {APP: place.push(APP, "new app"), OTHER: NOWHERE}})
        run_scheduled(site)

        waits = why(site, OTHER)

        assert_said(site, waits)
        assert (failed["action"], failed["rule"], failed["here"], failed["wanted"]) == ("failed", "failed", "", NOWHERE)
        assert "404" in failed["reason"]
        assert datetime.fromisoformat(failed["retry_at"]) > datetime.now(UTC)
        assert (waits["action"], waits["rule"]) == ("quarantined", "quarantine")
        assert "404" in waits["reason"]
        assert waits["retry_at"] == failed["retry_at"]


def test_why_of_an_image_that_two_groups_dispute(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        one, two = place.push(APP, "one"), place.push(APP, "two")
        place.decide({"first": {APP: one}, "second": {APP: two, OTHER: place.push(OTHER, "other")}})
        run = site.sync()

        found = why(site, APP)

        assert run.returncode == 1
        assert (found["action"], found["rule"], found["groups"]) == ("failed", "disputed", ["first", "second"])
        assert one in found["reason"]
        assert two in found["reason"]


def test_why_of_an_image_that_no_group_wants_any_more(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        app, other = place.push(APP, "app"), place.push(OTHER, "other")
        place.decide({"group": {APP: app, OTHER: other}})
        until_done(site)
        place.decide({"group": {APP: app}})
        until_done(site)

        found = why(site, OTHER)

        assert (found["action"], found["rule"], found["here"], found["wanted"]) == ("deleted", "unwanted", "", "")
        assert found["previous"] == other


def test_why_of_an_image_that_was_changed_at_the_site(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        app = place.push(APP, "app")
        place.decide({"group": {APP: app, OTHER: place.push(OTHER, "other")}})
        until_done(site)
        content = place.central.manifest_get("acme/app", app)
        for part in [json.loads(content.raw)["config"], *json.loads(content.raw)["layers"]]:
            site.writable.blob_mount("acme/other", Digest.parse(part["digest"]), "acme/app")
        site.writable.manifest_put("acme/other", "v1", content)
        place.decide({"group": {APP: app}})
        until_done(site)

        found = why(site, OTHER)

        assert (found["action"], found["rule"], found["here"]) == ("kept", "foreign", app)


def test_why_of_a_rolled_back_image_names_the_operator_s_decision_until_it_ends(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old, new = place.push(APP, "old"), place.push(APP, "new")
        for digest in (old, new):
            place.decide({"group": {APP: digest}})
            until_done(site)
        site.command("rollback")
        back = why(site, APP)
        site.command("rollback", "--undo")

        forth = why(site, APP)

        assert (back["rule"], back["here"], back["newer"]) == ("rollback", old, new)
        assert forth["here"] == new
        assert forth["rule"] != "rollback"


def test_why_of_a_staged_image_says_that_its_group_is_not_complete(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old, new = place.push(APP, "old"), place.push(APP, "new")
        large = artifacts.push_large_image(place.central, OTHER, 3_000_000)
        place.decide({"group": {APP: old}})
        until_done(site)
        place.decide({"group": {APP: new, OTHER: large}})
        # One after the other: the small one comes, the large one reaches the cap.
        site.settings |= {"HARBOR_SATELLITE_DAILY_BYTES": "1000000", "HARBOR_SATELLITE_IMAGE_WORKERS": "1"}
        run = site.sync()

        staged, paused = why(site, APP), why(site, OTHER)

        assert run.returncode == 3
        assert (staged["action"], staged["rule"], staged["here"]) == ("staged", "waiting", old)
        assert "group group lacks 1 more" in staged["reason"]
        assert (paused["action"], paused["rule"], paused["here"]) == ("paused", "paused", "")
        assert "cap" in paused["reason"]


def test_why_of_an_unknown_image_is_wrong_use(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        place.decide({"group": {APP: place.push(APP, "app")}})
        until_done(site)

        for output in ("text", "json"):
            done = site.command("why", "acme/nobody:v1", "--output", output)

            assert (done.returncode, done.stdout) == (2, "")
            assert "acme/nobody:v1" in done.stderr
