from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import DigestMismatchError, HarborSatelliteError, MalformedStateError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import Reference
from harbor_satellite.state.config import SatelliteConfig
from harbor_satellite.state.names import GroupName, SatelliteName, group_state_repository
from harbor_satellite.state.satellite_state import SatelliteState, StatePin, parse_satellite_state, satellite_state_json
from tests.unit.state.builders import D1, D2

DATA = Path(__file__).parents[2] / "data" / "state"
HOST = "harbor.example:8080"


def pin(group: str, digest: Digest | None, generation: int = 0) -> StatePin:
    name = GroupName(group)
    return StatePin(name, Reference(HOST, group_state_repository(name), "latest", digest), generation)


FULL = SatelliteState(
    satellite=SatelliteName("shop-17"),
    groups=(pin("stores", D1, 7), pin("tills", D2, 3)),
    config=f"https://{HOST}/satellite/config-state/default/state:latest",
)


def parse(raw: bytes) -> SatelliteState:
    return parse_satellite_state(raw, None, "the state")


def test_satellite_state_json_is_the_golden_file() -> None:
    assert satellite_state_json(FULL) + b"\n" == (DATA / "satellite.json").read_bytes()


def test_parse_satellite_state_golden_file_gives_same_state() -> None:
    raw = (DATA / "satellite.json").read_bytes().rstrip()

    assert parse_satellite_state(raw, Digest.of(raw), "it") == FULL


def test_parse_satellite_state_of_the_original() -> None:
    state = parse((DATA / "satellite_of_the_original.json").read_bytes())

    assert state.satellite is None
    assert state.groups == (pin("stores", None), pin("tills", None))
    assert state.config == f"http://{HOST}/satellite/config-state/default/state:latest"
    assert state.scheme == "http"


def test_satellite_state_json_is_readable_for_the_original() -> None:
    theirs = json.loads(satellite_state_json(FULL))

    assert theirs["states"][0] == f"https://{HOST}/satellite/group-state/stores/state:latest"
    assert parse(json.dumps({"states": theirs["states"], "config": theirs["config"]}).encode()).groups == (
        pin("stores", None),
        pin("tills", None),
    )


def test_satellite_state_json_carries_serial_and_settings() -> None:
    state = replace(FULL, serial=12, settings=SatelliteConfig(image_workers=2))

    raw = satellite_state_json(state)

    assert json.loads(raw)["settings"] == {"image_workers": 2}
    assert parse(raw) == state


def test_parse_satellite_state_settings_of_a_newer_centre_are_read_as_far_as_they_go() -> None:
    state = parse(b'{"settings": {"image_workers": 2, "warp": 9}}')

    assert state.settings == SatelliteConfig(image_workers=2)
    assert state.problems == ("warp: not known here",)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"serial": -1},
        {"serial": "12"},
        {"states": 5},
        {"states": [5]},
        {"states": ["https://harbor.example/library/alpine:latest"]},
        {"states": ["https://harbor.example/satellite/group-state/../state:latest"]},
        {"states": ["https://harbor.example/satellite/group-state/state:latest"]},
        {"states": ["group-state"]},
        {"states": [f"https://{HOST}/satellite/group-state/g/state:latest"] * 2},
        {"groups": None},
        {"groups": 5},
        {"groups": [5]},
        {"groups": [{"group": "g"}]},
        {"groups": [{"group": "../g", "state": "h.example/a"}]},
        {"groups": [{"group": "g", "state": "../a"}]},
        {"groups": [{"group": "g", "state": "h.example/a", "generation": -1}]},
        {"groups": [{"group": "g", "state": "h.example/a"}] * 2},
        {"satellite": 5},
        {"satellite": "../x"},
        {"config": 5},
    ],
    ids=lambda document: json.dumps(document)[-70:],
)
def test_parse_satellite_state_malformed_is_refused(document: object) -> None:
    with pytest.raises(MalformedStateError, match=r"malformed (satellite )?state the state"):
        parse(json.dumps(document).encode())


def test_parse_satellite_state_wrong_digest_is_refused() -> None:
    with pytest.raises(DigestMismatchError):
        parse_satellite_state(b"{}", D1, "it")


def test_parse_satellite_state_without_groups_follows_nothing() -> None:
    assert parse(b"{}").groups == ()


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.lists(st.text(max_size=6), max_size=2)
PINS = st.lists(st.dictionaries(st.sampled_from(["group", "state", "generation"]), VALUES) | VALUES, max_size=3)


@given(st.dictionaries(st.sampled_from(["states", "config", "satellite", "groups"]), VALUES | PINS))
def test_parse_satellite_state_any_document_leaks_nothing_else(document: dict[str, Any]) -> None:
    try:
        parse(json.dumps(document).encode())
    except HarborSatelliteError:
        return
