from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.oci.challenge import Challenge, parse_challenges

BASIC = Challenge("basic", {"realm": "b"})


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ('Basic realm="b"', [BASIC]),
        ("BASIC Realm=b", [BASIC]),
        ('basic realm = "b"', [BASIC]),
        ("Bearer", [Challenge("bearer")]),
        (
            'Bearer realm="https://a/token",service="harbor",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer", {"realm": "https://a/token", "service": "harbor", "scope": "repository:a/b:pull,push"}
                )
            ],
        ),
        ('Bearer realm="r", error="x", Basic realm="b"', [Challenge("bearer", {"realm": "r", "error": "x"}), BASIC]),
        ("Negotiate, Basic realm=b", [Challenge("negotiate"), BASIC]),
        (r'Basic realm="a \"quoted\" \\ word"', [Challenge("basic", {"realm": 'a "quoted" \\ word'})]),
        ('Basic realm="Ü=,"', [Challenge("basic", {"realm": "Ü=,"})]),
        ('Basic realm=""', [Challenge("basic", {"realm": ""})]),
        ("", []),
        ("  ", []),
        ("=,=", []),
        (",,,", []),
        ('"Basic realm=b"', []),
        ('Basic realm="never ends', [Challenge("basic")]),
    ],
)
def test_parse_challenges(header: str, challenges: list[Challenge]) -> None:
    assert list(parse_challenges(header)) == challenges


def test_parse_challenges_after_token68_goes_on() -> None:
    assert BASIC in parse_challenges('Negotiate YWJj==, Basic realm="b"')


@given(st.text() | st.text(alphabet='Bearer realm="=,\\ \t'))
def test_parse_challenges_any_text_ends_and_raises_nothing(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "header",
    [
        "Bearer " + 'a="' * 20_000,
        "Bearer " + "a=b," * 20_000,
        "a" * 60_000,
        "Bearer a=" + '"\\' * 30_000,
        " ," * 30_000,
    ],
    ids=["open quotes", "parameters", "one word", "escapes", "commas"],
)
def test_parse_challenges_long_garbage_takes_no_quadratic_time(header: str) -> None:
    parse_challenges(header)
