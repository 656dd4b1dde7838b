from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError
from harbor_satellite.oci.platform import Platform


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64/v8", "windows/amd64", "unknown/unknown"])
def test_platform_parse_then_str_gives_same_text(text: str) -> None:
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/amd 64", "a/b\n"]
)
def test_platform_parse_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a platform"):
        Platform.parse(text)


@given(st.text())
def test_platform_parse_any_text_leaks_nothing_else(text: str) -> None:
    try:
        Platform.parse(text)
    except HarborSatelliteError:
        return


@pytest.mark.parametrize(
    ("wish", "offer", "is_met"),
    [
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm/v7", "linux/arm", False),
        ("linux/arm", "linux/arm64", False),
        ("linux/amd64", "windows/amd64", False),
    ],
)
def test_platform_covers(wish: str, offer: str, is_met: bool) -> None:  # noqa: FBT001 - a column of the table
    assert Platform.parse(wish).covers(Platform.parse(offer)) is is_met
