from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.names import GroupName
from harbor_satellite.state.plan import Copy
from harbor_satellite.state.policy import GroupPolicy
from harbor_satellite.state.readiness import decide_readiness

EACH = GroupPolicy(publish="each")


def copy(name: str, *groups: str, tag: str = "v1") -> Copy:
    digest = Digest.of(name.encode())
    return Copy(f"acme/{name}", digest, (tag,), False, "", (), None, "", groups=tuple(map(GroupName, groups)))


A, B, SHARED = copy("a", "g"), copy("b", "g"), copy("shared", "g", "h")


def test_decide_readiness_complete_group_is_published() -> None:
    readiness = decide_readiness((A, B), {A, B}, set(), {})

    assert (readiness.publish, readiness.hold, readiness.waiting) == ((A, B), {}, {})


def test_decide_readiness_one_missing_holds_the_whole_group() -> None:
    readiness = decide_readiness((A, B), {A}, set(), {})

    assert readiness.publish == ()
    assert readiness.hold == {A: "group g lacks 1 more images"}


def test_decide_readiness_one_set_aside_holds_nothing() -> None:
    assert decide_readiness((A, B), {A}, {B}, {}).publish == (A,)


def test_decide_readiness_image_by_image_holds_nothing() -> None:
    assert decide_readiness((A, B), {A}, set(), {GroupName("g"): EACH}).publish == (A,)


def test_decide_readiness_shared_image_goes_with_the_group_that_is_complete() -> None:
    readiness = decide_readiness((A, B, SHARED), {A, SHARED}, set(), {})

    assert readiness.publish == (SHARED,)
    assert set(readiness.hold) == {A}


def test_decide_readiness_older_signature_is_never_held() -> None:
    signature = replace(copy("a", "g", tag=f"sha256-{'0' * 64}.sig"), is_signature=True)

    assert decide_readiness((signature, B), {signature}, set(), {}).publish == (signature,)


@st.composite
def situations(draw: st.DrawFn) -> tuple[tuple[Copy, ...], set[Copy], set[Copy], dict[GroupName, GroupPolicy]]:
    groups = st.sets(st.sampled_from(["g", "h", "i"]), min_size=1)
    names = draw(st.sets(st.integers(0, 20), max_size=8))
    copies = tuple(copy(str(name), *sorted(draw(groups))) for name in sorted(names))
    staged = {one for one in copies if draw(st.booleans())}
    set_aside = {one for one in copies if one not in staged and draw(st.booleans())}
    policies = {GroupName(group): EACH for group in draw(st.sets(st.sampled_from(["g", "h", "i"])))}
    return copies, staged, set_aside, policies


@given(situations())
def test_decide_readiness_publishes_only_what_is_staged_and_never_half_a_group(
    situation: tuple[tuple[Copy, ...], set[Copy], set[Copy], dict[GroupName, GroupPolicy]],
) -> None:
    copies, staged, set_aside, policies = situation

    readiness = decide_readiness(copies, staged, set_aside, policies)

    assert set(readiness.publish) | set(readiness.hold) == staged
    assert not set(readiness.publish) & set(readiness.hold)
    for held in readiness.hold:
        for group in held.groups:
            assert any(group in one.groups for one in copies if one not in staged and one not in set_aside)
