"""``edge register`` in this process: exit codes and messages; as a process see tests/integration."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.satellite.store import SatelliteStore
from tests.fakes.claims import SECRET, FakeClaims
from tests.unit.test_cli import Run, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["run"]

TOKEN = "made-up-token-of-the-shop"


@pytest.fixture
def centre() -> Iterator[FakeClaims]:
    with FakeClaims(TOKEN).serving() as fake:
        yield fake


@pytest.fixture(autouse=True)
def dropped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HARBOR_SATELLITE_REGISTRATION_FILE", str(tmp_path / "registration.json"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return tmp_path / "registration.json"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--token", "made-up-wrong"), 1, "refused the one-time token of --token: it is unknown, used, revoked"),
        (("--token", "made-up-wrong"), 1, "fleet satellite token"),
        (("--token", "a b"), 2, "--token is no one-time token"),
        (("--token", "-"), 2, "no one-time token on standard input"),
        (("--token", "x" * 5000), 2, "--token is no one-time token"),
        (("--token", "x", "--token-file", "/x"), 2, "not both"),
        (("--token-file", "/no/such"), 2, "/no/such"),
        ((), 2, "no one-time token: drop "),
        (("--token", "x", "--ca", "/no/such.pem", "--ground-control", "https://127.0.0.1:1"), 2, "/no/such.pem"),
    ],
    ids=lambda value: " ".join(part[:12] for part in value) if isinstance(value, tuple) else None,
)
def test_register_says_what_is_wrong(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    centre: FakeClaims,
    *,
    options: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    ended = run("edge", "register", "--ground-control", centre.url, "--wait", "0", *options)

    shown = capsys.readouterr()
    assert (ended, shown.out) == (code, "")
    assert said in shown.err


def test_register_ground_control_away_says_where_and_shows_no_token(
    run: Run, capsys: pytest.CaptureFixture[str], centre: FakeClaims
) -> None:
    centre.statuses = [503]

    code = run("edge", "register", "--ground-control", centre.url, "--token", TOKEN, "--wait", "0")

    shown = capsys.readouterr()
    assert code == 1
    assert f"{centre.url} refused the claim: HTTP 503" in shown.err
    assert TOKEN not in shown.err


def test_register_from_standard_input_and_once_more(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    centre: FakeClaims,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TOKEN}\n"))

    first = run("edge", "register", "--ground-control", centre.url, "--token", "-")
    second = run("edge", "register", "--token", "made-up-other")

    shown = capsys.readouterr()
    assert (first, second, centre.asked) == (0, 0, [TOKEN])
    assert "registered as shop" in shown.out
    assert "registered already as shop" in shown.out
    assert TOKEN not in shown.out + shown.err
    assert SECRET not in shown.out + shown.err
    assert SatelliteStore(tmp_path / "data").registered_by().ground_control_url == centre.url
