"""Tokens, passwords, schedules and the throttle: the pure parts of Ground Control."""

from __future__ import annotations

import importlib.util
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.api.throttle import FailureThrottle
from harbor_satellite.ground_control.people.passwords import check_password, hash_password, verify_password
from harbor_satellite.ground_control.satellites.schedules import parse_interval
from harbor_satellite.ground_control.tokens import hash_token, mint_session_token, mint_token, verify_token
from harbor_satellite.state.cron import check_schedule


def test_mint_token_is_long_safe_in_a_url_and_new_each_time() -> None:
    tokens = {mint_token().get_secret_value() for _ in range(100)}

    assert len(tokens) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_mint_session_token_is_as_long_as_the_original_s() -> None:
    assert len(mint_session_token().get_secret_value()) == 88


def test_hash_token_is_sha256() -> None:
    assert hash_token(SecretStr("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_verify_token_takes_only_the_right_one() -> None:
    token = mint_token()

    assert verify_token(token, hash_token(token))
    assert not verify_token(mint_token(), hash_token(token))
    assert not verify_token(token, None)
    assert not verify_token(token, "")


@given(st.text(st.characters(), max_size=600))
def test_verify_token_survives_any_text(text: str) -> None:
    assert not verify_token(SecretStr(text), hash_token(mint_token()))


def test_verify_token_longer_than_any_of_ours_is_wrong() -> None:
    token = SecretStr("x" * 513)

    assert not verify_token(token, hash_token(token))


def test_password_hash_is_argon2id_and_verifies() -> None:
    stored = hash_password(SecretStr("Right-Password-1"))

    assert stored.startswith("$argon2id$")
    assert verify_password(SecretStr("Right-Password-1"), stored)
    assert not verify_password(SecretStr("Wrong-Password-1"), stored)
    assert not verify_password(SecretStr("Right-Password-1"), None)
    assert not verify_password(SecretStr("Right-Password-1"), "not a hash")
    assert not verify_password(SecretStr("\ud800"), stored)


def test_password_hash_costs_what_rfc_9106_recommends() -> None:
    spec = importlib.util.find_spec("harbor_satellite.ground_control.people.passwords")
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)  # as it is without the tests' cheap hashes
    spec.loader.exec_module(fresh)

    stored = fresh.hash_password(SecretStr("Right-Password-1"))

    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")  # the low-memory profile, section 4
    assert fresh._NOBODY.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


@pytest.mark.parametrize("password", ["Aa345678", "Aa1" + "x" * 125, "Ää345678"])
def test_check_password_good(password: str) -> None:
    check_password(SecretStr(password))


@pytest.mark.parametrize("password", ["", "Aa34567", "Aa1" + "x" * 126, "aa345678", "AA345678", "Aabcdefg"])
def test_check_password_bad(password: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_password(SecretStr(password))

    assert not password or password not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("30s", 30),
        ("1m30s", 90),
        ("1h", 3600),
        ("1.5h", 5400),
        (".5m", 30),
        ("1000ms", 1),
        ("@every 00h00m30s", 30),
        ("90m", 5400),
    ],
)
def test_parse_interval_good(text: str, seconds: int | None) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["30", "s", "30 s", " 30s", "-30s", "+30s", "0s", "1.5s", "30S", "1d", "500ms", "9000h", "1e3s", "٣s", "30s" * 50],
)
def test_parse_interval_bad(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_interval(text)


@given(st.text(max_size=30))
def test_parse_interval_leaks_no_other_error(text: str) -> None:
    with suppress(InvalidInputError):
        parse_interval(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/5 * * * *", "*/5 * * * *"),
        (" 0  4 * * 1-5 ", "0 4 * * 1-5"),
        ("0,30 1-3/2 1 jan,DEC sun", "0,30 1-3/2 1 jan,DEC sun"),
        ("59 23 31 12 7", "59 23 31 12 7"),
        ("0 0 29 feb *", "0 0 29 feb *"),
        ("0 0 31,30 2-4 *", "0 0 31,30 2-4 *"),
        ("0 0 31 2 1", "0 0 31 2 1"),
        ("0 0 */20 2 *", "0 0 */20 2 *"),
    ],
)
def test_check_schedule_good(text: str, expected: str) -> None:
    assert check_schedule(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@every 30s",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "1, * * * *",
        "a * * * *",
        "* * * foo *",
        "²  * * * *",
        "* " * 100,
        "0 0 31 2 *",
        "0 0 30 feb *",
        "0 0 31 4,6,9-11/2 *",
    ],
)
def test_check_schedule_bad(text: str) -> None:
    with pytest.raises(InvalidInputError):
        check_schedule(text)


def test_throttle_counts_within_a_minute() -> None:
    throttle = FailureThrottle(limit=2)

    assert [throttle.note_failure("a", float(second)) for second in (0, 1)] == [None, None]
    assert throttle.retry_after("b", 2.0) is None
    assert (throttle.retry_after("a", 2.0), throttle.note_failure("a", 10.0)) == (58, 50)
    assert throttle.note_failure("a", 60.0) is None


def test_throttle_remembers_a_bounded_number_of_keys() -> None:
    throttle = FailureThrottle(limit=1, capacity=3)
    for key in range(10):
        throttle.note_failure(key, 0.0)

    assert len(throttle._windows) == 3
