"""The site's generations: what is pinned, what going back does, what is held."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import ConflictError, NotFoundError, StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.explain import explain, explanation_text
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.rollback import roll_back, take_back
from harbor_satellite.state.plan import Rule
from tests.unit.satellite.site import OPTIONS, Killed, Site, wanted
from tests.unit.satellite.test_sync import forget_local

if TYPE_CHECKING:
    from collections.abc import Callable

APP, TOOL = "acme/app", "acme/tool"
SCHEDULED = replace(OPTIONS, is_asked_for=False)


@pytest.fixture
def two(site: Site) -> tuple[Digest, Digest]:
    """Follow one generation, then the next."""
    old, new = site.image(APP, "one"), site.image(APP, "two")
    site.publish({"g": [wanted(APP, old, "v1"), wanted(TOOL, site.image(TOOL, "tool"), "v1")]})
    site.sync()
    site.publish({"g": [wanted(APP, new, "v1")]})
    site.sync()
    return old, new


def test_update_pins_the_previous_generation(site: Site, two: tuple[Digest, Digest]) -> None:
    assert site.local_tags(APP) == {"v1": two[1]}
    assert site.pinned(APP) == {two[0]}
    assert len(site.pinned(TOOL)) == 1


def test_second_update_lets_the_first_generation_go(site: Site, two: tuple[Digest, Digest]) -> None:
    third = site.image(APP, "three")
    site.publish({"g": [wanted(APP, third, "v1")]})

    site.sync()
    while_pulls_may_run = site.pinned(APP)
    site.sync()

    assert while_pulls_may_run == set(two)
    assert site.pinned(APP) == {two[1]}
    assert site.pinned(TOOL) == set()


def test_state_with_the_same_content_keeps_the_previous_generation(site: Site, two: tuple[Digest, Digest]) -> None:
    site.publish({"g": [wanted(APP, two[1], "v1")]}, expires_at=site.now + timedelta(days=1))

    site.sync()

    assert site.pinned(APP) == {two[0]}


def test_roll_back_publishes_the_previous_generation_without_the_source(site: Site, two: tuple[Digest, Digest]) -> None:
    site.home.requests = 0

    roll_back(site.local, site.store)

    assert site.home.requests == 0
    assert site.local_tags(APP) == {"v1": two[0]}
    assert set(site.local_tags(TOOL)) == {"v1"}
    assert two[1] in site.pinned(APP)


def test_roll_back_stays_until_the_centre_publishes_another_state(site: Site, two: tuple[Digest, Digest]) -> None:
    roll_back(site.local, site.store)

    stays = site.sync()
    held = site.local_tags(APP)
    site.publish({"g": [wanted(APP, third := site.image(APP, "three"), "v1")]})
    site.sync()

    assert (stays.requests, held) == (1, {"v1": two[0]})
    assert site.local_tags(APP) == {"v1": third}
    assert load_generations(site.store).held is None


def test_roll_back_then_wiped_registry_heals_to_what_was_gone_back_to(site: Site, two: tuple[Digest, Digest]) -> None:
    roll_back(site.local, site.store)
    forget_local(site)

    site.sync()

    assert site.local_tags(APP) == {"v1": two[0]}
    assert site.sync().requests == 1


def test_roll_back_taken_back_publishes_the_newer_again_without_the_source(
    site: Site, two: tuple[Digest, Digest]
) -> None:
    roll_back(site.local, site.store)
    site.home.requests = 0

    take_back(site.local, site.store)
    at_once = site.local_tags(APP)
    requests = site.home.requests

    assert (at_once, requests, site.local_tags(TOOL)) == ({"v1": two[1]}, 0, {})
    assert site.sync().requests == 1
    assert take_back(site.local, site.store) is None


def test_roll_back_taken_back_with_a_hole_is_brought_by_the_next_run(site: Site, two: tuple[Digest, Digest]) -> None:
    roll_back(site.local, site.store)
    site.local.manifest_delete(APP, str(two[1]))

    take_back(site.local, site.store)
    site.sync()

    assert site.local_tags(APP) == {"v1": two[1]}


def test_roll_back_again_changes_nothing(site: Site, two: tuple[Digest, Digest]) -> None:
    roll_back(site.local, site.store)

    outcomes = roll_back(site.local, site.store)

    assert {outcome.action for outcome in outcomes} == {"kept"}
    assert site.local_tags(APP) == {"v1": two[0]}
    assert site.sync().requests == 1


def test_roll_back_first_generation_has_nothing_before_it(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.sync()

    with pytest.raises(NotFoundError, match="no previous generation"):
        roll_back(site.local, site.store)


def test_roll_back_with_a_hole_changes_nothing(site: Site, two: tuple[Digest, Digest]) -> None:
    site.local.manifest_delete(APP, str(two[0]))

    with pytest.raises(ConflictError, match="acme/app:v1"):
        roll_back(site.local, site.store)

    assert site.local_tags(APP) == {"v1": two[1]}


@pytest.mark.parametrize("moment", ["v1", "after:v1"], ids=["before the tag moves", "after the tag moved"])
def test_roll_back_killed_is_finished_by_the_next_run(site: Site, two: tuple[Digest, Digest], moment: str) -> None:
    site.local.killed_at = moment
    with pytest.raises(Killed):
        roll_back(site.local, site.store)
    site.local.killed_at = ""

    site.sync()

    assert site.local_tags(APP) == {"v1": two[0]}
    assert site.sync().requests == 1


def test_generations_damaged_file_is_named(site: Site) -> None:
    site.store.write_document("generations.json", {"current": {}})

    with pytest.raises(StorageError, match=r"generations\.json is damaged"):
        load_generations(site.store)


def test_group_with_an_image_that_the_link_holds_up_moves_no_tag(site: Site, two: tuple[Digest, Digest]) -> None:
    third, tool = site.image(APP, "three"), site.image(TOOL, "tool two")
    site.publish({"g": [wanted(APP, third, "v1"), wanted(TOOL, tool, "v1")]})
    site.home.is_cut_for = TOOL
    cut = site.sync()
    served = site.local_tags(APP)
    site.home.is_cut_for = ""

    site.sync()

    assert [(image.reference, image.rule) for image in cut.of("staged")] == [(f"{APP}:v1", Rule.WAITING)]
    assert served == {"v1": two[1]}
    assert (site.local_tags(APP), site.local_tags(TOOL)) == ({"v1": third}, {"v1": tool})


def test_image_that_its_incomplete_group_dropped_stays_until_the_group_is_complete(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.sync()
    site.publish({"g": [wanted(TOOL, site.image(TOOL, "tool"), "v1")]})
    site.home.is_cut_for = TOOL
    site.sync()
    while_cut = set(site.local_tags(APP))
    site.home.is_cut_for = ""

    site.sync()

    assert while_cut == {"v1"}
    assert site.local_tags(APP) == {}


def test_missing_image_is_set_aside_and_not_asked_for_again_before_its_time(site: Site) -> None:
    good = site.image(APP, "one")
    site.publish({"g": [wanted(APP, good, "v1"), wanted(TOOL, Digest.of(b"missing"), "v1")]})

    first = site.sync(SCHEDULED)
    second = site.sync(SCHEDULED)
    site.pass_time(timedelta(minutes=6))
    third = site.sync(SCHEDULED)

    assert site.local_tags(APP) == {"v1": good}
    assert [len(run.of("failed")) for run in (first, second, third)] == [1, 0, 1]
    assert (second.requests, second.is_converged, len(second.of("quarantined"))) == (1, False, 1)


def test_missing_image_is_tried_at_once_when_an_operator_asks(site: Site) -> None:
    site.publish({"g": [wanted(TOOL, digest := site.image(TOOL, "tool"), "v1")]})
    content = (
        site.home.manifest_get(TOOL, "v1") if site.home.tag_list(TOOL) else site.home.manifest_get(TOOL, str(digest))
    )
    site.home.manifest_delete(TOOL, str(digest))
    site.sync(SCHEDULED)
    site.home.manifest_put(TOOL, str(digest), content)

    assert site.sync(SCHEDULED).of("copied") == ()
    assert len(site.sync().of("copied")) == 1
    assert site.store.applied().quarantine == ()


def test_disputed_name_costs_one_request_a_run(site: Site) -> None:
    one, two = site.image(APP, "one"), site.image(APP, "two")
    site.publish({"g": [wanted(APP, one, "v1")], "h": [wanted(APP, two, "v1")]})
    site.sync(SCHEDULED)

    assert site.sync(SCHEDULED).requests == 1


def _missing(site: Site) -> None:
    site.publish({"g": [wanted(APP, Digest.of(b"missing"), "v1")]})
    site.sync(SCHEDULED)


def _disputed(site: Site) -> None:
    entries = [[wanted(APP, site.image(APP, content), "v1")] for content in ("one", "two")]
    site.publish({"g": entries[0], "h": entries[1]})
    site.sync()


def _rolled_back(site: Site) -> None:
    for content in ("one", "two"):
        site.publish({"g": [wanted(APP, site.image(APP, content), "v1")]})
        site.sync()
    roll_back(site.local, site.store)


def _removed(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.sync()
    site.publish({"g": []})
    site.sync()


def _copied(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.sync()


@pytest.mark.parametrize(
    ("arrange", "rule"),
    [
        (_missing, Rule.FAILED),
        (_disputed, Rule.DISPUTED),
        (_rolled_back, Rule.ROLLBACK),
        (_removed, Rule.UNWANTED),
        (_copied, Rule.ABSENT),
    ],
    ids=["missing", "disputed", "rolled back", "removed", "copied"],
)
def test_explain_names_the_rule(site: Site, arrange: Callable[[Site], None], rule: Rule) -> None:
    arrange(site)

    (explanation,) = explain(site.store, site.local, f"localhost:8585/{APP}:v1")

    assert explanation.rule == rule
    assert explanation.reason
    assert explanation_text(explanation).startswith(f"{APP}:v1\n")


def test_explain_image_that_nobody_knows_is_not_found(site: Site) -> None:
    _copied(site)

    with pytest.raises(NotFoundError, match="no group wants acme/other"):
        explain(site.store, site.local, "acme/other:v1")
