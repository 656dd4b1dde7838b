from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.state.desired import LocalTag, merge_states
from harbor_satellite.state.plan import ReplicationPlan, plan_replication
from tests.unit.state.builders import D1, D2, D3, entry, group

if TYPE_CHECKING:
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.state.artifact import StateArtifact

UNSURE = "content or referrers missing, or not checked under its policy"
A, B = LocalTag("acme/a", "v1"), LocalTag("acme/b", "v1")
A_DIGEST = LocalTag("acme/a", str(D1))


@dataclass(frozen=True)
class Case:
    """What is wanted, what is here, what is ours; then what shall be done, as lines."""

    states: tuple[StateArtifact, ...] = ()
    present: dict[LocalTag, Digest] = field(default_factory=dict)
    owned: dict[LocalTag, set[Digest]] = field(default_factory=dict)
    incomplete: frozenset[LocalTag] = frozenset()
    copy: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    refuse: tuple[str, ...] = ()


def plan_of(case: Case) -> ReplicationPlan:
    return plan_replication(merge_states(case.states), case.present, case.owned, case.incomplete)


CASES = {
    "nothing wanted, nothing here": Case(),
    "new image": Case((group("g", entry("acme/a", D1, "v1")),), copy=("acme/a:v1",)),
    "new image with two tags is one copy": Case((group("g", entry("acme/a", D1, "v1", "v2")),), copy=("acme/a:v1,v2",)),
    "one of two tags is there": Case(
        (group("g", entry("acme/a", D1, "v1", "v2")),), {A: D1}, copy=("acme/a:v2",), keep=("acme/a:v1",)
    ),
    "tag moved": Case((group("g", entry("acme/a", D2, "v1")),), {A: D1}, {A: {D1}}, copy=("acme/a:v1",)),
    "kept": Case((group("g", entry("acme/a", D1, "v1")),), {A: D1}, {A: {D1}}, keep=("acme/a:v1",)),
    "wanted and there, but not ours": Case((group("g", entry("acme/a", D1, "v1")),), {A: D1}, keep=("acme/a:v1",)),
    "wanted, and the site changed it": Case(
        (group("g", entry("acme/a", D1, "v1")),), {A: D3}, {A: {D1}}, copy=("acme/a:v1",)
    ),
    "no longer wanted": Case((), {A: D1}, {A: {D1}}, delete=("acme/a:v1",)),
    "no longer wanted, gone already": Case((), {}, {A: {D1}}),
    "foreign tag": Case((), {A: D1}),
    "no longer wanted, changed at the site": Case((), {A: D3}, {A: {D1}}, keep=("acme/a:v1",)),
    "killed while moving, not wanted, old": Case((), {A: D1}, {A: {D1, D2}}, delete=("acme/a:v1",)),
    "killed while moving, not wanted, new": Case((), {A: D2}, {A: {D1, D2}}, delete=("acme/a:v1",)),
    "two groups share an image": Case(
        (group("g", entry("acme/a", D1, "v1")), group("h", entry("acme/a", D1, "v1"))), copy=("acme/a:v1",)
    ),
    "two groups shared an image and one left": Case(
        (group("g", entry("acme/a", D1, "v1")), group("h")), {A: D1}, {A: {D1}}, keep=("acme/a:v1",)
    ),
    "left a group": Case(
        (group("g", entry("acme/a", D1, "v1")),),
        {A: D1, B: D2},
        {A: {D1}, B: {D2}},
        keep=("acme/a:v1",),
        delete=("acme/b:v1",),
    ),
    "same name in two projects": Case(
        (group("g", entry("acme/app", D1, "v1"), entry("tools/app", D2, "v1")),),
        {LocalTag("acme/app", "v1"): D1, LocalTag("tools/app", "v1"): D2},
        {LocalTag("acme/app", "v1"): {D1}, LocalTag("tools/app", "v1"): {D2}},
        keep=("acme/app:v1", "tools/app:v1"),
    ),
    "disputed": Case(
        (group("g", entry("acme/a", D1, "v1")), group("h", entry("acme/a", D2, "v1"))), refuse=("acme/a:v1",)
    ),
    "disputed, what is here stays": Case(
        (group("g", entry("acme/a", D1, "v1")), group("h", entry("acme/a", D2, "v1"))),
        {A: D3},
        {A: {D3}},
        refuse=("acme/a:v1",),
    ),
    "marked deleted": Case((group("g", entry("acme/a", D1, "v1", deleted=True)),)),
    "marked deleted, ours": Case(
        (group("g", entry("acme/a", D1, "v1", deleted=True)),), {A: D1}, {A: {D1}}, delete=("acme/a:v1",)
    ),
    "marked deleted in one group only": Case(
        (group("g", entry("acme/a", D1, "v1", deleted=True)), group("h", entry("acme/a", D1, "v1"))),
        {A: D1},
        {A: {D1}},
        keep=("acme/a:v1",),
    ),
    "by digest alone": Case((group("g", entry("acme/a", D1)),), copy=(f"acme/a@{D1}",)),
    "by digest alone, there": Case(
        (group("g", entry("acme/a", D1)),), {A_DIGEST: D1}, {A_DIGEST: {D1}}, keep=(f"acme/a@{D1}",)
    ),
    "by digest alone, no longer wanted": Case((), {A_DIGEST: D1}, {A_DIGEST: {D1}}, delete=(f"acme/a@{D1}",)),
    "incomplete": Case(
        (group("g", entry("acme/a", D1, "v1")),), {A: D1}, {A: {D1}}, frozenset({A}), copy=("acme/a:v1",)
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_plan_replication(case: Case) -> None:
    plan = plan_of(case)

    assert tuple(map(str, plan.copy)) == case.copy
    assert tuple(str(item.name) for item in plan.keep) == case.keep
    assert tuple(str(item.name) for item in plan.delete) == case.delete
    assert tuple(str(item.name) for item in plan.refuse) == case.refuse


@pytest.mark.parametrize(
    ("present", "incomplete", "reason"),
    [({}, (), "not there"), ({A: D2}, (), f"tag moved from {D2}"), ({A: D1}, (A,), UNSURE)],
    ids=["new", "moved", "incomplete"],
)
def test_plan_replication_says_why_it_copies(
    present: dict[LocalTag, Digest], incomplete: tuple[LocalTag, ...], reason: str
) -> None:
    plan = plan_replication(merge_states([group("g", entry("acme/a", D1, "v1"))]), present, {}, incomplete)

    assert [copy.reason for copy in plan.copy] == [reason]


def test_plan_replication_keep_names_every_group_that_wants_it() -> None:
    states = [group("h", entry("acme/a", D1, "v1")), group("g", entry("acme/a", D1, "v1"))]

    plan = plan_replication(merge_states(states), {A: D1}, {})

    assert plan.keep[0].reason == "wanted by g, h"


def test_merge_states_dispute_names_groups_and_digests() -> None:
    merged = merge_states([group("h", entry("acme/a", D2, "v1")), group("g", entry("acme/a", D1, "v1"))])

    assert merged.refuse[0].reason == f"groups disagree: g wants {D1}, h wants {D2}"
    assert A in merged.names


@pytest.mark.parametrize(
    ("first", "second", "union"),
    [((D2,), (D3, D2), (D2, D3)), ((D2,), None, None), ((), (), ())],
    ids=["both known", "one unknown", "none"],
)
def test_merge_states_referrers(
    first: tuple[Digest, ...], second: tuple[Digest, ...] | None, union: tuple[Digest, ...] | None
) -> None:
    merged = merge_states(
        [
            group("g", entry("acme/a", D1, "v1", referrers=first)),
            group("h", entry("acme/a", D1, "v1", referrers=second)),
        ]
    )

    assert merged.artifacts[0].referrers == union


def test_plan_replication_by_tag_and_by_digest_owns_both_names() -> None:
    states = [group("g", entry("acme/a", D1, "v1")), group("h", entry("acme/a", D1))]

    plan = plan_replication(merge_states(states), {}, {})

    assert {name for copy in plan.copy for name in copy.names} == {A, A_DIGEST}


TAGS = [LocalTag(repository, tag) for repository in ("acme/a", "tools/a") for tag in ("v1", "v2")]
DIGESTS = st.sampled_from([D1, D2, D3])
ENTRIES = st.builds(
    lambda name, digest, deleted: entry(name.repository, digest, name.tag, deleted=deleted),
    st.sampled_from(TAGS),
    DIGESTS,
    st.booleans(),
)
STATES = st.lists(st.lists(ENTRIES, max_size=4), max_size=3).map(
    lambda groups: [group(f"g{number}", *entries) for number, entries in enumerate(groups)]
)
PRESENT = st.dictionaries(st.sampled_from(TAGS), DIGESTS)
OWNED = st.dictionaries(st.sampled_from(TAGS), st.frozensets(DIGESTS, min_size=1, max_size=2))


@given(STATES, PRESENT, OWNED, st.randoms())
def test_plan_replication_any_order_of_input_gives_same_plan(
    states: list[StateArtifact],
    present: dict[LocalTag, Digest],
    owned: dict[LocalTag, frozenset[Digest]],
    random: object,
) -> None:
    shuffle = random.shuffle  # type: ignore[attr-defined]
    other, items, ours = list(states), list(present.items()), list(owned.items())
    for sequence in (other, items, ours):
        shuffle(sequence)

    plan = plan_replication(merge_states(states), present, owned)

    assert plan_replication(merge_states(other), dict(items), dict(ours)) == plan


@given(STATES, PRESENT, OWNED)
def test_plan_replication_carried_out_leaves_nothing_to_do(
    states: list[StateArtifact], present: dict[LocalTag, Digest], owned: dict[LocalTag, frozenset[Digest]]
) -> None:
    desired = merge_states(states)
    plan = plan_replication(desired, present, owned)
    copied = {name: copy.digest for copy in plan.copy for name in copy.names}
    after = {
        **{name: digest for name, digest in present.items() if name not in {d.name for d in plan.delete}},
        **copied,
    }
    ours = {**owned, **{name: frozenset({digest}) for name, digest in copied.items()}}

    again = plan_replication(desired, after, {name: held for name, held in ours.items() if name in after})

    assert (again.copy, again.delete) == ((), ())
    assert all(after[item.name] == item.digest for item in desired.artifacts)


@given(STATES, PRESENT, OWNED)
def test_plan_replication_deletes_only_what_is_owned_and_unwanted(
    states: list[StateArtifact], present: dict[LocalTag, Digest], owned: dict[LocalTag, frozenset[Digest]]
) -> None:
    desired = merge_states(states)

    plan = plan_replication(desired, present, owned)

    sets = [
        {name for copy in plan.copy for name in copy.names},
        {item.name for item in plan.keep},
        {item.name for item in plan.delete},
        {item.name for item in plan.refuse},
    ]
    assert sum(map(len, sets)) == len(set().union(*sets))
    for deletion in plan.delete:
        assert deletion.name not in desired.names
        assert present[deletion.name] == deletion.digest
        assert deletion.digest in owned[deletion.name]
