from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.reference import check_repository
from harbor_satellite.state.names import (
    GroupName,
    SatelliteName,
    check_name,
    config_state_repository,
    group_name,
    group_state_repository,
    satellite_name,
    satellite_state_repository,
    work_pool_name,
)


@pytest.mark.parametrize("name", ["a", "shop-17", "shop_17.berlin", "0", "a" * 128, "a--b", "a__b"], ids=str)
def test_satellite_name_by_the_rules_is_returned(name: str) -> None:
    assert satellite_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../etc",
        "a/b",
        "a/../b",
        "a..b",
        "a._b",
        "-a",
        "a-",
        "_a",
        "a.",
        "A",
        "a b",
        "a\n",
        "a\x00",
        "a%2fb",
        "é",
        "a" * 129,
        "robot$a",
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["satellite", "group", "config"])
def test_check_name_against_the_rules_is_refused(kind: str, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"not a {kind} name"):
        check_name(kind, name)


@given(st.text(alphabet="ab0-_./A ", max_size=140))
def test_check_name_taken_is_safe_in_every_repository(name: str) -> None:
    try:
        checked = group_name(name)
    except InvalidInputError:
        return
    assert check_repository(group_state_repository(checked))
    assert re.fullmatch(r"[a-z0-9._-]{1,128}", checked)


def test_repositories_are_those_of_the_original() -> None:
    assert group_state_repository(GroupName("g")) == "satellite/group-state/g/state"
    assert satellite_state_repository(SatelliteName("s")) == "satellite/satellite-state/s/state"
    assert config_state_repository("c") == "satellite/config-state/c/state"


def test_work_pool_name() -> None:
    assert work_pool_name(SatelliteName("shop-17")) == "satellite-shop-17"
