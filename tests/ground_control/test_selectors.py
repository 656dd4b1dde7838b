"""Selectors: which artifacts a pattern takes, and what becomes of a group whose listing fails."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.demo import images
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.groups import group_states
from harbor_satellite.ground_control.groups.globs import parse_glob
from harbor_satellite.ground_control.groups.group_entries import group_entry, merge_ways
from harbor_satellite.ground_control.groups.publishing import publish_group, resolve_group
from harbor_satellite.ground_control.groups.selection import Evaluation
from harbor_satellite.ground_control.groups.selectors import Candidate, make_selector, select
from harbor_satellite.harbor.client import HarborClient
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.state.artifact import StateArtifact, StateEntry
from harbor_satellite.state.names import group_name
from tests.ground_control.test_publishing import Pushes

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fixtures_ground_control import GroundControl

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def digest_of(name: str) -> Digest:
    return Digest.of(name.encode())


def candidate(repository: str, *tags: str, age: int = 0, **values: Any) -> Candidate:
    name = f"{repository}{tags}{age}"
    return Candidate(repository, digest_of(name), tags, NOW - timedelta(days=age), **values)


def taken(candidates: list[Candidate], **wish: Any) -> list[tuple[str, tuple[str, ...]]]:
    selector = make_selector("selectors[0]", **{"project": "acme", **wish})
    return [(entry.repository, entry.tags) for entry in select(candidates, selector)]


# -- patterns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("app", "app", True),
        ("app", "apps", False),
        ("*", "app", True),
        ("*", "team/app", False),
        ("**", "team/app", True),
        ("team/*", "team/app", True),
        ("team/*", "team/a/b", False),
        ("team/**", "team/a/b", True),
        ("**/app", "app", True),
        ("**/app", "x/y/app", True),
        ("**/app", "myapp", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("{app,many}", "many", True),
        ("{app,many}", "man", False),
        ("v{1,2{,.1}}", "v2.1", True),
        ("v?", "v1", True),
        ("v?", "v", False),
        ("v[0-9]*", "v10", True),
        ("v[!0-9]", "v1", False),
        ("v[^0-9]", "vx", True),
        ("v1.*", "v1.2", True),
        ("v1.*", "v1x2", False),
        ("***", "a/b", True),
        ("*app*", "app", True),
    ],
)
def test_glob_matches_as_harbor_s_rules_do(pattern: str, name: str, is_match: bool) -> None:  # noqa: FBT001 - a table
    assert parse_glob(pattern).matches(name) is is_match


@pytest.mark.parametrize("pattern", ["{a,b", "a}", "[a", "a]", "a b", "[]", "[z-a]", "a\\b", "ü", "{a,b}" * 7])
def test_glob_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_glob(pattern)


def test_glob_that_would_take_a_regular_expression_for_ever_is_quick() -> None:
    pattern, name = parse_glob("*a" * 100 + "b"), "a" * 255
    started = time.perf_counter()

    is_match = pattern.matches(name)

    assert not is_match
    assert time.perf_counter() - started < 0.1


# -- choosing -----------------------------------------------------------------------------------------------------


def test_select_takes_matching_tags_with_the_digest_of_the_listing() -> None:
    found = candidate("acme/team/app", "v1", "latest")
    selector = make_selector("selectors[0]", project="acme", repository="team/*", tag="v*", priority=3)

    (entry,) = select([found, candidate("acme/other", "v1"), candidate("tools/team/app", "v1")], selector)

    assert (entry.repository, entry.tags, entry.digest, entry.priority) == (
        "acme/team/app",
        ("v1",),
        found.digest,
        3,
    )


def test_select_newest_counts_what_matches_in_each_repository() -> None:
    candidates = [
        candidate("acme/a", "v1", age=3),
        candidate("acme/a", "nightly", age=0),
        candidate("acme/a", "v2", age=2),
        candidate("acme/a", "v3", age=1),
        candidate("acme/b", "v1", age=9),
    ]

    assert taken(candidates, tag="v*", newest=2) == [("acme/a", ("v3",)), ("acme/a", ("v2",)), ("acme/b", ("v1",))]


def test_select_newest_of_equal_times_does_not_depend_on_the_order_of_the_listing() -> None:
    candidates = [candidate("acme/a", f"v{number}") for number in range(5)]

    assert taken(candidates, newest=2) == taken(candidates[::-1], newest=2)


def test_select_labels_must_all_be_there() -> None:
    candidates = [
        candidate("acme/a", "v1", labels=frozenset({"edge", "prod"})),
        candidate("acme/b", "v1", labels=frozenset({"edge"})),
    ]

    assert taken(candidates, labels=["edge", "prod"]) == [("acme/a", ("v1",))]


def test_select_platforms_one_must_be_there() -> None:
    arm = Platform.parse("linux/arm64/v8")
    candidates = [
        candidate("acme/a", "v1", platforms=(Platform.parse("linux/amd64"), arm)),
        candidate("acme/b", "v1", platforms=(Platform.parse("linux/s390x"),)),
        candidate("acme/chart", "v1"),
    ]

    assert taken(candidates, platforms=["linux/arm64", "linux/riscv64"]) == [("acme/a", ("v1",))]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("project", "a/b"),
        ("project", "UPPER"),
        ("repository", ""),
        ("repository", "{a"),
        ("tag", "v" * 256),
        ("labels", [""]),
        ("labels", ["x"] * 33),
        ("platforms", ["linux"]),
        ("newest", 0),
        ("priority", 10**9),
    ],
)
def test_selector_bad_value_names_the_field(field: str, value: object) -> None:
    values: dict[str, Any] = {"project": "acme", field: value}

    with pytest.raises(InvalidInputError, match=rf"^selectors\[4\]\.{field}: "):
        make_selector("selectors[4]", **values)


def test_merge_ways_of_one_tag_the_first_way_counts() -> None:
    pinned = group_entry("acme/app", ["v1"], str(digest_of("pinned")))
    selected = group_entry("acme/app", ["v1", "v2"], str(digest_of("selected")))

    merged = merge_ways([pinned], [], [selected])

    assert merged == (pinned, replace(selected, tags=("v2",)))


def test_merge_ways_tag_that_is_listed_as_deleted_is_not_selected() -> None:
    banned = group_entry("acme/app", ["bad"], "", deleted=True)

    merged = merge_ways([banned], [group_entry("acme/app", ["bad"], str(digest_of("selected")))])

    assert merged == (banned,)


# -- asking Harbor ------------------------------------------------------------------------------------------------


class Listings:
    """Harbor's listings of repositories and artifacts; what is an int is the status of a refusal."""

    def __init__(self, repositories: Any, artifacts: dict[str, Any]) -> None:
        self.repositories = repositories
        self.artifacts = artifacts
        self.paths: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        self.paths.append(path)
        found = self.repositories
        if path.endswith("/artifacts"):
            found = self.artifacts[path.split("/")[-2]]
        if isinstance(found, int):
            return httpx.Response(found, json={"errors": [{"code": "X", "message": "refused"}]})
        return httpx.Response(200, json=found, headers={"X-Total-Count": str(len(found))})

    def client(self) -> HarborClient:
        return HarborClient("http://harbor.test", "admin", SecretStr("x"), transport=httpx.MockTransport(self))


def listed(name: str, *tags: str) -> dict[str, Any]:
    return {
        "digest": str(digest_of(name)),
        "type": "IMAGE",
        "push_time": "2026-11-22T20:15:23.445Z",
        "tags": [{"name": tag} for tag in tags] or None,
        "labels": None,
    }


def published(*names: str) -> StateArtifact:
    entries = tuple(
        StateEntry(repository, (tag,), digest_of(f"old {repository}"))
        for repository, _, tag in (name.partition(":") for name in names)
    )
    return StateArtifact(group=group_name("shops"), registry="http://x", artifacts=entries, generation=1)


def evaluate(listings: Listings, tmp_path: Path, before: StateArtifact | None, **wish: Any) -> Any:
    selector = make_selector("selectors[0]", **{"project": "acme", **wish})
    with listings.client() as client:
        return Evaluation(client, LayoutRegistry(tmp_path), before).run([selector])


def test_evaluation_lists_only_repositories_that_match_and_each_once(tmp_path: Path) -> None:
    listings = Listings([{"name": "acme/app"}, {"name": "acme/other"}], {"app": [listed("one", "v1")]})
    selectors = [make_selector("x", project="acme", repository="app", tag=tag) for tag in ("v1", "v*")]

    with listings.client() as client:
        found = Evaluation(client, LayoutRegistry(tmp_path), None).run(selectors)

    assert [(entry.repository, entry.tags, entry.digest) for entry in found.entries] == [
        ("acme/app", ("v1",), digest_of("one"))
    ]
    assert sum(path.endswith("/artifacts") for path in listings.paths) == 1
    assert sum(path.endswith("/repositories") for path in listings.paths) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_evaluation_project_that_cannot_be_listed_keeps_what_was_published(tmp_path: Path, status: int) -> None:
    before = published("acme/app:v1", "acme/app:nightly", "tools/app:v1")

    found = evaluate(Listings(status, {}), tmp_path, before, tag="v*")

    assert found.entries == ()
    assert [(entry.repository, entry.tags) for entry in found.kept] == [("acme/app", ("v1",))]
    assert [problem.reference for problem in found.problems] == ["acme/**:v*"]


def test_evaluation_repository_that_cannot_be_listed_holds_up_no_other(tmp_path: Path) -> None:
    listings = Listings([{"name": "acme/app"}, {"name": "acme/bad"}], {"app": [listed("one", "v2")], "bad": 500})

    found = evaluate(listings, tmp_path, published("acme/app:v1", "acme/bad:v1"))

    assert [(entry.repository, entry.tags) for entry in found.entries] == [("acme/app", ("v2",))]
    assert [(entry.repository, entry.tags) for entry in found.kept] == [("acme/bad", ("v1",))]
    assert [problem.reference for problem in found.problems] == ["acme/bad:**"]


def test_evaluation_project_that_is_empty_empties_the_selector(tmp_path: Path) -> None:
    found = evaluate(Listings([], {}), tmp_path, published("acme/app:v1"))

    assert (found.entries, found.kept, found.problems) == ((), (), ())


def test_evaluation_source_that_is_slow_for_ever_is_given_up(tmp_path: Path) -> None:
    moments = iter([0.0, 301.0])
    listings = Listings([{"name": "acme/app"}], {"app": []})

    with listings.client() as client:
        evaluation = Evaluation(client, LayoutRegistry(tmp_path), published("acme/app:v1"), monotonic=moments.__next__)
        found = evaluation.run([make_selector("x", project="acme")])

    assert [entry.repository for entry in found.kept] == ["acme/app"]
    assert "more than 300 s" in found.problems[0].reason


# -- a source that is no Harbor -----------------------------------------------------------------------------------


def test_evaluation_without_harbor_takes_tags_of_a_named_repository(tmp_path: Path) -> None:
    source = LayoutRegistry(tmp_path)
    image = images.push_image(source, "acme/app", images.AMD64, [images.layer("app", 100)])
    for tag in ("v1", "v2", "nightly"):
        images.tag_image(source, "acme/app", tag, image)

    found = Evaluation(None, source, None).run([make_selector("x", project="acme", repository="app", tag="v*")])

    assert [(entry.repository, entry.tags, entry.digest) for entry in found.entries] == [
        ("acme/app", ("v1", "v2"), None)
    ]


@pytest.mark.parametrize(
    "wish", [{"repository": "**"}, {"labels": ["edge"]}, {"newest": 1}, {"platforms": ["linux/amd64"]}]
)
def test_evaluation_without_harbor_of_what_only_harbor_knows_keeps_and_says_so(
    tmp_path: Path, wish: dict[str, Any]
) -> None:
    selector = make_selector("x", **{"project": "acme", "repository": "app", **wish})

    found = Evaluation(None, LayoutRegistry(tmp_path), published("acme/app:v1")).run([selector])

    assert [entry.tags for entry in found.kept] == [("v1",)]
    assert "only a Harbor can be asked" in found.problems[0].reason


def test_evaluation_without_harbor_repository_without_tags_is_not_taken_for_empty(tmp_path: Path) -> None:
    selector = make_selector("x", project="acme", repository="app")

    found = Evaluation(None, LayoutRegistry(tmp_path), published("acme/app:v1")).run([selector])

    assert [entry.tags for entry in found.kept] == [("v1",)]
    assert "has no tags, or is not there" in found.problems[0].reason


# -- in a group ---------------------------------------------------------------------------------------------------


def put(running: GroundControl, *selectors: dict[str, Any]) -> httpx.Response:
    return running.admin.put("/api/groups/shops/selectors", json={"selectors": list(selectors)})


def test_put_selectors_replaces_all_and_they_are_shown(ground_control: GroundControl) -> None:
    ground_control.sync_group("shops", "acme/app")
    put(ground_control, {"project": "old"})

    answer = put(ground_control, {"project": "tools", "repository": "{a,b}", "newest": 3, "labels": ["edge"]})

    assert answer.status_code == 200
    shown = ground_control.admin.get("/api/groups/shops/selectors").json()["selectors"]
    assert shown == answer.json()["selectors"]
    assert [(item["project"], item["repository"], item["newest"]) for item in shown] == [("tools", "{a,b}", 3)]
    assert ground_control.admin.get("/api/groups/shops").json()["Projects"] == ["acme", "tools"]


def test_put_selectors_bad_one_changes_nothing(ground_control: GroundControl) -> None:
    ground_control.sync_group("shops", "acme/app")
    put(ground_control, {"project": "acme"})

    answer = put(ground_control, {"project": "tools"}, {"project": "tools", "tag": "{"})

    assert answer.status_code == 400
    assert answer.json()["message"].startswith("selectors[1].tag: ")
    kept = ground_control.admin.get("/api/groups/shops/selectors").json()["selectors"]
    assert [item["project"] for item in kept] == ["acme"]


def test_sync_group_leaves_selectors(ground_control: GroundControl) -> None:
    ground_control.sync_group("shops", "acme/app")
    put(ground_control, {"project": "tools"})

    ground_control.sync_group("shops", "acme/other")

    kept = ground_control.admin.get("/api/groups/shops/selectors").json()["selectors"]
    assert [item["project"] for item in kept] == ["tools"]


def test_publish_group_listing_that_fails_is_no_new_generation(
    ground_control: GroundControl, session_factory: SessionFactory, tmp_path: Path
) -> None:
    source = LayoutRegistry(tmp_path)
    image = images.push_image(source, "acme/app", images.AMD64, [images.layer("app", 100)])
    images.tag_image(source, "acme/app", "v1", image)
    ground_control.sync_group("shops")
    put(ground_control, {"project": "acme"})
    listing = {**listed("", "v1"), "digest": str(image.digest)}
    generations = []

    for listings in (Listings([{"name": "acme/app"}], {"app": [listing]}), Listings(503, {}), Listings([], {})):
        with session_factory() as session:
            spec = group_states.group_spec(session, "shops")
        with listings.client() as client:
            resolved = resolve_group(source, spec, Evaluation(client, source, spec.published).run(spec.selectors))
        with session_factory.begin() as session:
            state = publish_group(session, Pushes(), spec, resolved, registry="http://source.test", now=NOW)
        generations.append((state and state.generation, len(resolved.entries), len(resolved.unresolved)))

    assert generations == [(1, 1, 0), (None, 1, 1), (2, 0, 0)]
