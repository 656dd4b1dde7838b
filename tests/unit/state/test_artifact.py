from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import DigestMismatchError, HarborSatelliteError, MalformedStateError, SizeLimitError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.state.artifact import (
    STATE_MAX_BYTES,
    StateArtifact,
    StateEntry,
    parse_state_artifact,
    state_artifact_json,
)
from harbor_satellite.state.names import GroupName
from tests.unit.state.builders import D1, D2, entry, group

DATA = Path(__file__).parents[2] / "data" / "state"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
FULL = StateArtifact(
    group=GroupName("stores"),
    registry="https://harbor.example",
    artifacts=(
        StateEntry(
            "acme/app",
            ("v1", "v2"),
            D1,
            labels={"tier": "gold"},
            size=4711,
            media_type="application/vnd.oci.image.index.v1+json",
            platforms=(Platform("linux", "amd64"), Platform("linux", "arm", "v7")),
            referrers=(D2,),
        ),
        entry("acme/chart", D2),
        entry("acme/old", D2, "v1", deleted=True, referrers=None),
    ),
    generation=7,
    created_at=NOW,
    expires_at=NOW + timedelta(days=30),
)
PART: dict[str, Any] = {"repository": "acme/app", "tag": ["v1"], "digest": str(D1)}


def document(*artifacts: object, **more: object) -> bytes:
    return json.dumps({"group": "stores", "registry": "", "artifacts": list(artifacts), **more}).encode()


def parse(raw: bytes) -> StateArtifact:
    return parse_state_artifact(raw, None, "the state")


def test_state_artifact_json_is_the_golden_file() -> None:
    assert state_artifact_json(FULL) + b"\n" == (DATA / "group.json").read_bytes()


def test_parse_state_artifact_golden_file_gives_same_state() -> None:
    raw = (DATA / "group.json").read_bytes().rstrip()

    assert parse_state_artifact(raw, Digest.of(raw), "it") == FULL


def test_state_artifact_json_entries_in_any_order_give_same_bytes() -> None:
    shuffled = replace(FULL, artifacts=tuple(reversed(FULL.artifacts)))

    assert state_artifact_json(shuffled) == state_artifact_json(FULL)


def test_state_artifact_json_time_in_any_zone_gives_same_bytes() -> None:
    elsewhere = replace(FULL, created_at=NOW.astimezone(timezone(timedelta(hours=-5))))

    assert state_artifact_json(elsewhere) == state_artifact_json(FULL)


def test_parse_state_artifact_of_the_original() -> None:
    state = parse((DATA / "group_of_the_original.json").read_bytes())

    assert (state.group, state.registry, state.generation) == ("stores", "https://harbor.example", 0)
    assert (state.created_at, state.expires_at) == (None, None)
    assert [item.repository for item in state.artifacts] == ["library/alpine", "library/nginx"]
    assert [item.deleted for item in state.artifacts] == [True, False]
    assert state.artifacts[1].tags == ("v1", "v2")
    assert state.artifacts[1].referrers is None


def test_parse_state_artifact_keeps_every_key_of_the_original() -> None:
    theirs = json.loads((DATA / "group_of_the_original.json").read_bytes())

    ours = json.loads(state_artifact_json(parse(json.dumps(theirs).encode())))

    assert theirs.keys() <= ours.keys()
    assert theirs["artifacts"][0].keys() <= ours["artifacts"][0].keys()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        document(group=None),
        document(group=5),
        document(group=["a"]),
        document(group="../../etc"),
        document(group="Stores"),
        document(group=""),
        document(registry=5),
        document(5),
        document("text"),
        document([]),
        document(None),
        document(artifacts={"a": 1}),
        document(artifacts=5),
        document({**PART, "repository": "../etc"}),
        document({**PART, "repository": None}),
        document({"tag": ["v1"], "digest": str(D1)}),
        document({"repository": "a", "tag": ["v1"]}),
        document({**PART, "digest": "sha256:12"}),
        document({**PART, "digest": ""}),
        document({**PART, "tag": ["a/b"]}),
        document({**PART, "tag": [5]}),
        document({**PART, "tag": 5}),
        document({**PART, "type": 5}),
        document({**PART, "size": -1}),
        document({**PART, "size": True}),
        document({**PART, "size": "5"}),
        document({**PART, "platforms": ["linux"]}),
        document({**PART, "platforms": "linux/amd64"}),
        document({**PART, "referrers": ["sha256:1"]}),
        document({**PART, "media_type": ["x"]}),
        document(generation=-1),
        document(generation=True),
        document(generation=1.5),
        document(generation="1"),
        document(created_at="yesterday"),
        document(created_at=1700000000),
        document(expires_at="2026-11-22T12:00:00"),
        b'{"group":"g","registry":"","generation":' + b"9" * 5000 + b"}",
    ],
    ids=lambda raw: raw[-70:].decode(errors="replace"),
)
def test_parse_state_artifact_malformed_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedStateError, match="malformed state the state"):
        parse(raw)


def test_parse_state_artifact_time_out_of_range_is_refused() -> None:
    with pytest.raises(MalformedStateError):
        parse(document(expires_at="0001-01-01T00:00:00+14:00"))


def test_parse_state_artifact_tag_as_text_is_refused() -> None:
    with pytest.raises(MalformedStateError):
        parse(document({**PART, "tag": "v1"}))


@pytest.mark.parametrize("deleted", ["true", 1, [True]], ids=repr)
def test_parse_state_artifact_deleted_is_no_boolean_is_refused(deleted: object) -> None:
    with pytest.raises(MalformedStateError):
        parse(document({**PART, "deleted": deleted}))


def test_parse_state_artifact_malformed_message_stays_short() -> None:
    with pytest.raises(MalformedStateError) as raised:
        parse(document({**PART, "type": ["x" * 1_000_000]}))

    assert len(str(raised.value)) < 2000


def test_same_content_labels_after_round_trip() -> None:
    state = group("stores", replace(entry("acme/app", D1, "v1"), labels=("a", "b")))

    assert parse(state_artifact_json(state)).same_content(state)


def test_state_artifact_json_of_parsed_text_with_lone_surrogate() -> None:
    with pytest.raises(MalformedStateError):
        state_artifact_json(parse(document({**PART, "labels": {"a": "\ud800"}})))


def test_parse_state_artifact_too_large_is_refused_unread() -> None:
    with pytest.raises(SizeLimitError, match=str(STATE_MAX_BYTES)):
        parse(b" " * (STATE_MAX_BYTES + 1))


def test_parse_state_artifact_wrong_digest_is_refused() -> None:
    with pytest.raises(DigestMismatchError, match="the state"):
        parse_state_artifact(document(), D1, "the state")


def test_parse_state_artifact_tag_with_two_digests_is_refused() -> None:
    with pytest.raises(MalformedStateError, match=f"acme/app:v1 is named with {D1} and with {D2}"):
        parse(document(PART, {**PART, "digest": str(D2)}))


@pytest.mark.parametrize(
    "second",
    [{**PART}, {**PART, "digest": str(D2), "deleted": True}, {**PART, "repository": "other/app", "digest": str(D2)}],
    ids=["same digest", "deleted entry", "other repository"],
)
def test_parse_state_artifact_tag_twice_without_contradiction_is_taken(second: dict[str, Any]) -> None:
    assert len(parse(document(PART, second)).artifacts) == 2


@pytest.mark.parametrize("tags", [None, []], ids=["null", "empty"])
def test_parse_state_artifact_entry_without_tags_is_held_by_digest(tags: object) -> None:
    assert parse(document({**PART, "tag": tags})).artifacts[0].tags == ()


@pytest.mark.parametrize("artifacts", [None, []], ids=["null", "empty"])
def test_parse_state_artifact_empty_group(artifacts: object) -> None:
    assert parse(document(artifacts=artifacts)).artifacts == ()


def test_parse_state_artifact_unknown_keys_are_ignored() -> None:
    assert parse(document({**PART, "new": 1}, newer={})).artifacts[0].digest == D1


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (replace(FULL, generation=8, created_at=None, expires_at=None), True),
        (replace(FULL, artifacts=tuple(reversed(FULL.artifacts))), True),
        (replace(FULL, artifacts=FULL.artifacts[1:]), False),
        (replace(FULL, registry="https://other.example"), False),
    ],
    ids=["generation and times", "order", "an entry less", "another registry"],
)
def test_same_content(other: StateArtifact, is_same: bool) -> None:  # noqa: FBT001 - a column of the table
    assert FULL.same_content(other) is is_same


@pytest.mark.parametrize(
    ("after", "has_expired"),
    [(timedelta(days=30, seconds=-1), False), (timedelta(days=30), True)],
    ids=["a second before", "at the time"],
)
def test_has_expired(after: timedelta, has_expired: bool) -> None:  # noqa: FBT001 - a column of the table
    assert FULL.has_expired(NOW + after) is has_expired


def test_has_expired_without_expiry_never() -> None:
    assert not group("stores").has_expired(datetime.max.replace(tzinfo=UTC))


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.text(max_size=3))
ENTRIES = st.lists(
    st.dictionaries(st.sampled_from([*PART, "size", "platforms", "referrers", "deleted"]), VALUES) | VALUES
)


@given(st.binary() | st.builds(document, st.just(PART), generation=VALUES, registry=VALUES, group=VALUES))
def test_parse_state_artifact_any_bytes_leak_nothing_else(raw: bytes) -> None:
    try:
        parse(raw)
    except HarborSatelliteError:
        return


@given(ENTRIES)
def test_parse_state_artifact_any_entries_leak_nothing_else(entries: list[Any]) -> None:
    try:
        parse(document(*entries))
    except HarborSatelliteError:
        return
