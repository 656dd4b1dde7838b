"""Renewal at the site: whatever is lost or killed on the way, the credential on disk works."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import AuthenticationError, ConflictError, RemoteError, StorageError
from harbor_satellite.satellite.applied import Applied
from harbor_satellite.satellite.ground_control_client import GroundControlClient
from harbor_satellite.satellite.renewal import is_expiring, may_be_refused, renew
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.wire import ImageFailure, Registration, RegistryAuth

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NEXT = {"url": "https://inside.example", "username": "robot$shop-r1", "password": "next-secret"}


@pytest.fixture
def store(tmp_path: Path) -> SatelliteStore:
    store = SatelliteStore(tmp_path / "satellite")
    store.save_registration(registered())
    return store


def registered(expires_at: datetime | None = None) -> Registration:
    auth = RegistryAuth(
        url="https://harbor.example", username="robot$shop", password=SecretStr("old-secret"), expires_at=expires_at
    )
    return Registration(auth=auth, state="https://harbor.example/satellite/s:latest", satellite="shop")


def client(answer: Callable[[httpx.Request], httpx.Response]) -> GroundControlClient:
    return GroundControlClient("https://gc.example", transport=httpx.MockTransport(answer))


def fine(_registration: Registration) -> None:
    pass


def test_renew_at_a_centre_that_knows_only_the_credential_before(store: SatelliteStore) -> None:
    with client(lambda _: httpx.Response(200, json=NEXT)) as peer:
        renew(peer, store, fine)
    asked = []

    def restored(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["Authorization"])
        is_known = asked[-1] == httpx.BasicAuth("robot$shop", "old-secret")._auth_header
        return httpx.Response(200, json={**NEXT, "password": "anew"}) if is_known else httpx.Response(401)

    with client(restored) as peer:
        renew(peer, store, fine)

    assert len(asked) == 2
    assert store.registration().auth.password.get_secret_value() == "anew"
    assert (store.folder / "previous.json").stat().st_mode & 0o777 == 0o600


def test_registration_anew_forgets_the_credential_before(store: SatelliteStore) -> None:
    store.save_renewed(registered())

    store.save_registration(registered())

    assert store.previous_auth() is None


def test_is_expiring_when_it_came_is_the_clock_s_fault(store: SatelliteStore) -> None:
    kept_at = store.registered_at()
    assert kept_at is not None
    ahead, right = registered(kept_at - timedelta(days=300)), registered(kept_at + timedelta(days=30))

    assert not is_expiring(ahead, kept_at + timedelta(hours=1), kept_at)
    assert is_expiring(right, kept_at + timedelta(days=29, hours=13), kept_at)


def refuse(_registration: Registration) -> None:
    raise RemoteError("refused", status=401)


def test_renew_tries_the_next_credential_and_keeps_it(store: SatelliteStore) -> None:
    tried = []
    with client(lambda _: httpx.Response(200, json={**NEXT, "expires_at": "2026-12-23T12:00:00Z"})) as peer:
        renew(peer, store, lambda registration: tried.append(registration.auth.username))

    kept = store.registration()
    assert tried == ["robot$shop-r1"]
    assert (kept.auth.username, kept.auth.password.get_secret_value()) == ("robot$shop-r1", "next-secret")
    assert kept.auth.expires_at == datetime(2026, 12, 23, 12, tzinfo=UTC)
    assert (kept.auth.url, kept.satellite) == ("https://harbor.example", "shop")
    assert not (store.folder / "renewal.json").exists()


def test_renew_key_is_on_disk_and_private_before_asking(store: SatelliteStore) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        path = store.folder / "renewal.json"
        seen.append((json.loads(path.read_text()) == json.loads(request.content), path.stat().st_mode & 0o777))
        return httpx.Response(200, json=NEXT)

    with client(answer) as peer:
        renew(peer, store, fine)

    assert seen == [(True, 0o600)]


def test_renew_asks_with_the_present_credential(store: SatelliteStore) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, request.headers["Authorization"]))
        return httpx.Response(200, json=NEXT)

    with client(answer) as peer:
        renew(peer, store, fine)

    assert seen == [("/satellites/credential", httpx.BasicAuth("robot$shop", "old-secret")._auth_header)]


def test_renew_answer_lost_asks_again_with_the_same_key(store: SatelliteStore) -> None:
    keys = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(json.loads(request.content)["renewal_key"])
        if len(keys) == 1:
            raise httpx.ReadError("gone", request=request)
        return httpx.Response(200, json=NEXT)

    with client(answer) as peer:
        with pytest.raises(RemoteError):
            renew(peer, store, fine)
        renew(peer, store, fine)

    assert keys[0] == keys[1]
    assert store.registration().auth.username == "robot$shop-r1"


def test_renew_next_credential_refused_by_the_source_keeps_the_present_one(store: SatelliteStore) -> None:
    with client(lambda _: httpx.Response(200, json=NEXT)) as peer, pytest.raises(RemoteError):
        renew(peer, store, refuse)

    assert store.registration().auth.username == "robot$shop"


def test_renew_cannot_be_kept_leaves_the_present_one(store: SatelliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_name: str, _document: object) -> None:
        raise StorageError("disk full")

    with client(lambda _: httpx.Response(200, json=NEXT)) as peer:
        store.renewal_key("made before")
        monkeypatch.setattr(store, "write_document", full)
        with pytest.raises(StorageError):
            renew(peer, store, fine)

    assert store.registration().auth.username == "robot$shop"


def test_renew_revoked_says_what_to_do(store: SatelliteStore) -> None:
    with client(lambda _: httpx.Response(401)) as peer, pytest.raises(AuthenticationError, match="one-time token"):
        renew(peer, store, fine)


def test_renew_beside_another_renewal_is_refused(store: SatelliteStore) -> None:
    with (
        client(lambda _: httpx.Response(200, json=NEXT)) as peer,
        store.credentials_lock(),
        pytest.raises(ConflictError),
    ):
        renew(peer, store, fine)


@pytest.mark.parametrize(
    ("left", "is_due"),
    [(None, False), (timedelta(hours=13), False), (timedelta(hours=11), True), (timedelta(days=-9), True)],
    ids=["never", "later", "soon", "past"],
)
def test_is_expiring(left: timedelta | None, is_due: bool) -> None:  # noqa: FBT001
    registration = registered(NOW + left if left is not None else None)

    assert is_expiring(registration, NOW) is is_due


@pytest.mark.parametrize(
    ("reason", "may_be"), [("pull x: refused with status 401: UNAUTHORIZED", True), ("no space", False)]
)
def test_may_be_refused_by_the_reasons_of_the_last_run(reason: str, may_be: bool) -> None:  # noqa: FBT001
    applied = Applied(failures=(ImageFailure(reference="a:b", reason=reason),))

    assert may_be_refused(applied) is may_be
