from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import AuthenticationError, InvalidInputError, RemoteError
from harbor_satellite.satellite.ground_control_client import GroundControlClient
from harbor_satellite.satellite.registration import read_token, register
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOKEN = SecretStr("made-up-token")
GOOD = {"auth": {"url": "h", "username": "u", "password": "made-up-secret"}, "state": "h/s", "satellite": "shop"}


@pytest.fixture
def store(tmp_path: Path) -> SatelliteStore:
    return SatelliteStore(tmp_path / "satellite")


def client(answer: Callable[[httpx.Request], httpx.Response]) -> GroundControlClient:
    return GroundControlClient("https://gc.example", transport=httpx.MockTransport(answer))


def never(_request: httpx.Request) -> httpx.Response:
    pytest.fail("Ground Control was asked")


def test_register_keeps_what_comes_back(store: SatelliteStore) -> None:
    with client(lambda _: httpx.Response(200, json=GOOD)) as peer:
        register(peer, store, TOKEN)

    assert store.registration().satellite == "shop"


def test_register_again_asks_nobody(store: SatelliteStore) -> None:
    with client(lambda _: httpx.Response(200, json=GOOD)) as peer:
        register(peer, store, TOKEN)

    with client(never) as peer:
        again = register(peer, store, SecretStr(""))

    assert again.satellite == "shop"


def test_register_claim_key_is_on_disk_before_the_claim(store: SatelliteStore) -> None:
    on_disk = []

    def answer(request: httpx.Request) -> httpx.Response:
        on_disk.append(json.loads((store.folder / "claim.json").read_text())["claim_key"])
        assert json.loads(request.content)["claim_key"] == on_disk[0]
        return httpx.Response(200, json=GOOD)

    with client(answer) as peer:
        register(peer, store, TOKEN)

    assert len(on_disk[0]) >= 43


def test_register_answer_lost_claims_again_with_same_key(store: SatelliteStore) -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(json.loads(request.content)["claim_key"])
        if len(keys) == 1:
            raise httpx.ReadError("cut", request=request)
        return httpx.Response(200, json=GOOD)

    with client(answer) as peer:
        with pytest.raises(RemoteError):
            register(peer, store, TOKEN)
        register(peer, store, TOKEN)

    assert keys[0] == keys[1]


def test_register_refused_keeps_nothing(store: SatelliteStore) -> None:
    with client(lambda _: httpx.Response(401)) as peer, pytest.raises(AuthenticationError):
        register(peer, store, TOKEN)

    assert not (store.folder / "registration.json").exists()


def test_register_without_token_asks_nobody(store: SatelliteStore) -> None:
    with client(never) as peer, pytest.raises(InvalidInputError, match="no one-time token"):
        register(peer, store, SecretStr(""))


def test_read_token_from_file_drops_the_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("made-up-token\n")

    assert read_token(SecretStr("other"), tmp_path / "token").get_secret_value() == "made-up-token"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not UTF-8"])
def test_read_token_from_broken_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)

    with pytest.raises(InvalidInputError, match="cannot read the one-time token"):
        read_token(SecretStr(""), tmp_path / "token")
