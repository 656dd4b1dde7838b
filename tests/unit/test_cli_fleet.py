"""The admin client and what the `fleet` commands read and show; no Ground Control."""

from __future__ import annotations

import io
import json
import stat
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.cli.fleet_inputs import read_json, read_pairs, read_value
from harbor_satellite.cli.fleet_rollouts import read_wave
from harbor_satellite.cli.fleet_session import (
    Connection,
    login_file,
    path_of,
    read_login,
    read_token_file,
    save_login,
)
from harbor_satellite.cli.fleet_tables import byte_count, cell, duration, show_rows
from harbor_satellite.errors import (
    AuthenticationError,
    ConflictError,
    HarborSatelliteError,
    InvalidInputError,
    NotFoundError,
    RemoteError,
    StorageError,
    UntrustedDataError,
)
from harbor_satellite.fleet_client import GroundControlApi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

URL = "https://gc.test"


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def api(answer: Callable[[httpx.Request], httpx.Response]) -> GroundControlApi:
    return GroundControlApi(URL, SecretStr("t0ken"), transport=httpx.MockTransport(answer))


def test_request_sends_the_token_and_gives_the_answer() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer t0ken"
        assert str(request.url) == f"{URL}/api/groups/a%2Fb?limit=0&label=x%3D1&label=y%3D2"
        return httpx.Response(200, json={"name": "a"})

    query = {"limit": 0, "name": "", "state": None, "label": ["x=1", "y=2"]}

    assert api(answer).request("GET", path_of("groups", "a/b"), query=query) == {"name": "a"}


def test_request_without_an_answer_gives_none() -> None:
    assert api(lambda _: httpx.Response(204)).request("DELETE", "/api/tokens/ci") is None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidInputError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (409, ConflictError),
        (429, RemoteError),
        (500, RemoteError),
    ],
)
def test_request_refused_says_what_the_api_says(status: int, error: type[HarborSatelliteError]) -> None:
    refusing = api(lambda _: httpx.Response(status, json={"message": "no group 'x'", "code": status}))

    with pytest.raises(error, match="no group 'x'"):
        refusing.request("GET", "/api/groups/x")


def test_request_not_logged_in_says_how_to() -> None:
    with pytest.raises(AuthenticationError, match="fleet login"):
        api(lambda _: httpx.Response(401, json={"message": "credentials needed"})).request("GET", "/api/groups")


def test_request_answered_by_something_else_is_untrusted() -> None:
    with pytest.raises(UntrustedDataError, match="is it Ground Control"):
        api(lambda _: httpx.Response(200, text="<html>")).request("GET", "/api/groups")


def test_request_without_a_link_is_a_remote_error() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(RemoteError, match="cannot be reached: refused"):
        api(answer).request("GET", "/api/groups")


def test_client_refuses_a_user_in_the_url() -> None:
    with pytest.raises(InvalidInputError) as caught:
        GroundControlApi("https://me:word@gc.test")

    assert "word" not in str(caught.value)


def test_page_of_what_is_no_list_is_untrusted() -> None:
    with pytest.raises(UntrustedDataError, match="than a list"):
        api(lambda _: httpx.Response(200, json={})).page("/api/groups")


def test_all_rows_pages_until_the_total() -> None:
    offsets = []

    def answer(request: httpx.Request) -> httpx.Response:
        offset, limit = (int(request.url.params[name]) for name in ("offset", "limit"))
        offsets.append(offset)
        rows = [{"name": number} for number in range(offset, min(1203, offset + limit))]
        return httpx.Response(200, json=rows, headers={"X-Total-Count": "1203"})

    page = api(answer).all_rows("/api/fleet", {"offset": 3})

    assert [row["name"] for row in page.rows] == list(range(3, 1203))
    assert page.total == 1203
    assert offsets == [3, 503, 1003]


def test_login_is_kept_for_this_user_alone_and_read_again() -> None:
    path = save_login(URL, SecretStr("t0ken"))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_login() == {"url": URL, "token": "t0ken"}


def test_login_damaged_is_reported() -> None:
    save_login(URL, SecretStr("t0ken"))
    login_file().write_text("{")

    with pytest.raises(StorageError, match="cannot read the login"):
        read_login()


def sent_token(connection: Connection) -> str | None:
    with connection.open() as opened:
        header: str | None = opened._http.headers.get("Authorization")
        return header


def test_connection_uses_the_login_where_it_was_made() -> None:
    save_login(URL, SecretStr("t0ken"))

    assert Connection("", None, None).where() == URL
    assert sent_token(Connection(f"{URL}/", None, None)) == "Bearer t0ken"


def test_connection_sends_a_login_nowhere_else() -> None:
    save_login(URL, SecretStr("t0ken"))

    assert sent_token(Connection("https://other.test", None, None)) is None


def test_connection_token_of_the_environment_stands_above_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    save_login(URL, SecretStr("t0ken"))
    monkeypatch.setenv("HARBOR_SATELLITE_API_TOKEN", "program")

    assert sent_token(Connection(URL, None, None)) == "Bearer program"


def test_connection_token_file_stands_above_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_API_TOKEN", "program")
    (tmp_path / "token").write_text("filed\n")

    assert sent_token(Connection(URL, tmp_path / "token", None)) == "Bearer filed"


def test_connection_without_a_url_says_what_to_give() -> None:
    with pytest.raises(InvalidInputError, match="--ground-control"):
        Connection("", None, None).where()


@pytest.mark.parametrize("content", [b"", b"a\nb", b"\xff", b"x" * 5000], ids=["empty", "lines", "binary", "long"])
def test_token_file_that_holds_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)

    with pytest.raises(InvalidInputError, match="token"):
        read_token_file(tmp_path / "token")


@pytest.mark.parametrize(
    ("text", "wave"),
    [
        ("canary:5%", {"name": "canary", "percent": 5.0}),
        ("north:region=north,tier=1", {"name": "north", "label": {"region": "north", "tier": "1"}}),
        ("first:shop-1,shop-2", {"name": "first", "satellites": ["shop-1", "shop-2"]}),
    ],
)
def test_read_wave(text: str, wave: dict[str, Any]) -> None:
    assert read_wave(text) == wave


@pytest.mark.parametrize("text", ["", "canary", ":5%", "canary:", "canary:x%", "north:region=north,=1"])
def test_read_wave_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        read_wave(text)


def test_read_pairs_without_equals_is_refused() -> None:
    assert read_pairs(["a=1", "b="]) == {"a": "1", "b": ""}
    with pytest.raises(InvalidInputError, match="not KEY=VALUE: 'c'"):
        read_pairs(["c"])


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("true", True), ("5G", "5G"), ('["a"]', ["a"]), ("null", None)])
def test_read_value(text: str, value: object) -> None:
    assert read_value(text) == value


def test_read_json_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")

    with pytest.raises(InvalidInputError, match="not a JSON object"):
        read_json(tmp_path / "list.json")


def test_cell_cannot_steer_the_terminal() -> None:
    assert cell({"reason": "\x1b[2Jgone\n"}) == "reason=?[2Jgone?"
    assert cell(["a\x9b", True, None]) == "a?, yes, "


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (45, "45 s"), (700, "12 min"), (10_800, "3 h"), (500_000, "6 d")]
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_byte_count() -> None:
    assert [byte_count(count) for count in (None, 0, 999, 1500, 2 * 10**12)] == ["", "0 B", "999 B", "1.5 kB", "2.0 TB"]


def test_show_rows_lines_columns_up(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a", "in": {"x": 1}}, {"name": "long-name"}]

    show_rows(rows, {"name": "NAME", "in.x": "X"}, "table", "2 rows")

    assert capsys.readouterr().out.splitlines() == ["NAME       X", "a          1", "long-name", "2 rows"]


def test_show_rows_on_a_terminal_shows_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "dumb")

    show_rows([{"name": "[red]shop"}], {"name": "NAME"}, "table")

    assert "[red]shop" in terminal.getvalue()


def test_show_rows_as_json_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "a", "more": None}], {"name": "NAME"}, "json", "a note")

    assert json.loads(capsys.readouterr().out) == [{"name": "a", "more": None}]
