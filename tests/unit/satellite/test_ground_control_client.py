from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import (
    AuthenticationError,
    HarborSatelliteError,
    RemoteError,
    SizeLimitError,
    UntrustedDataError,
)
from harbor_satellite.satellite.ground_control_client import GroundControlClient
from harbor_satellite.state.wire import StatusReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.state.wire import Registration

TOKEN, KEY, SECRET = "made-up-token", "made-up-key", "made-up-secret"
GOOD = {"auth": {"url": "https://harbor.example", "username": "robot$shop", "password": SECRET}, "state": "h/s:latest"}


class Peer:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | Callable[[httpx.Request], httpx.Response]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        return answer if isinstance(answer, httpx.Response) else answer(request)

    def client(self, url: str = "https://gc.example") -> GroundControlClient:
        return GroundControlClient(url, transport=httpx.MockTransport(self))


def claim(peer: Peer) -> Registration:
    with peer.client() as client:
        return client.claim(SecretStr(TOKEN), SecretStr(KEY))


def report(peer: Peer) -> None:
    with peer.client("https://gc.example/") as client:
        client.report(StatusReport(name="shop"), "robot$shop", SecretStr(SECRET))


def broken(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


def silent(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("", request=request)


def test_claim_sends_token_in_the_body_only() -> None:
    peer = Peer(httpx.Response(200, json=GOOD))

    registration = claim(peer)

    (request,) = peer.requests
    assert (request.method, str(request.url)) == ("POST", "https://gc.example/satellites/ztr")
    assert json.loads(request.content) == {"token": TOKEN, "claim_key": KEY}
    assert registration.auth.password.get_secret_value() == SECRET


@pytest.mark.parametrize("status", [404, 405])
def test_claim_at_the_original_falls_back_to_its_way(status: int) -> None:
    peer = Peer(httpx.Response(status), httpx.Response(200, json=GOOD))

    registration = claim(peer)

    assert (peer.requests[1].method, peer.requests[1].url.path) == ("GET", f"/satellites/ztr/{TOKEN}")
    assert registration.satellite == ""


def test_claim_token_with_odd_characters_stays_one_path_segment() -> None:
    peer = Peer(httpx.Response(404), httpx.Response(200, json=GOOD))

    with peer.client() as client:
        client.claim(SecretStr("../a?b#c"), SecretStr(KEY))

    assert peer.requests[1].url.raw_path == b"/satellites/ztr/..%2Fa%3Fb%23c"


@pytest.mark.parametrize("answers", [[401], [404, 401]], ids=["ours", "the original"])
def test_claim_refused_token_is_authentication_error(answers: list[int]) -> None:
    with pytest.raises(AuthenticationError, match="unknown, used, revoked or expired") as raised:
        claim(Peer(*map(httpx.Response, answers)))

    assert not raised.value.retryable


@pytest.mark.parametrize(
    ("answer", "is_retryable"),
    [
        (httpx.Response(400), False),
        (httpx.Response(403), False),
        (httpx.Response(429), True),
        (httpx.Response(500), True),
        (httpx.Response(502), True),
        (httpx.Response(503), True),
        (broken, True),
        (silent, True),
    ],
    ids=["400", "403", "429", "500", "502", "503", "unreachable", "silent"],
)
@pytest.mark.parametrize("ask", [claim, report])
def test_client_refusal_says_whether_to_retry(
    ask: Callable[[Peer], object],
    answer: httpx.Response,
    is_retryable: bool,  # noqa: FBT001 - a column of the table
) -> None:
    with pytest.raises(RemoteError) as raised:
        ask(Peer(answer))

    assert raised.value.retryable is is_retryable


@pytest.mark.parametrize("url", ["gc.example:8080", "ftp://gc.example", ""])
def test_client_url_that_never_works_is_not_retryable(url: str) -> None:
    with GroundControlClient(url) as client, pytest.raises(HarborSatelliteError) as raised:
        client.claim(SecretStr(TOKEN), SecretStr(KEY))

    assert not raised.value.retryable


def test_report_redirected_by_captive_portal_is_not_delivered() -> None:
    with pytest.raises(RemoteError):
        report(Peer(httpx.Response(302, headers={"Location": "http://login.wifi.example/"})))


def test_client_refusal_carries_retry_after() -> None:
    with pytest.raises(RemoteError) as raised:
        report(Peer(httpx.Response(429, headers={"Retry-After": "7"})))

    assert raised.value.retry_after_seconds == 7


@pytest.mark.parametrize("ask", [claim, report])
def test_client_oversized_answer_is_refused(ask: Callable[[Peer], object]) -> None:
    with pytest.raises(SizeLimitError, match="more than 1048576 bytes"):
        ask(Peer(httpx.Response(200, content=b"x" * (1024 * 1024 + 1))))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>log in</html>",
        b"[]",
        b"\xff",
        b"[" * 50_000,
        json.dumps({"auth": {"password": SECRET}}).encode(),
        json.dumps({**GOOD, "state": [SECRET]}).encode(),
    ],
    ids=["empty", "HTML", "list", "not UTF-8", "nested", "parts missing", "wrong type"],
)
def test_claim_garbage_answer_is_refused_without_the_secret(content: bytes) -> None:
    with pytest.raises(UntrustedDataError, match="something else than a registration") as raised:
        claim(Peer(httpx.Response(200, content=content)))

    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_claim_refusal_that_echoes_the_path_shows_no_token() -> None:
    echo = httpx.Response(400, text=f"Cannot GET /satellites/ztr/{TOKEN}")

    with pytest.raises(RemoteError) as raised:
        claim(Peer(httpx.Response(404), echo))

    assert TOKEN not in str(raised.value)


def test_report_is_sent_as_the_satellite() -> None:
    peer = Peer(httpx.Response(200))

    report(peer)

    (request,) = peer.requests
    assert str(request.url) == "https://gc.example/satellites/sync"
    assert request.headers["Authorization"].startswith("Basic ")
    assert json.loads(request.content)["name"] == "shop"


def test_report_credential_refused_is_authentication_error() -> None:
    with pytest.raises(AuthenticationError) as raised:
        report(Peer(httpx.Response(401)))

    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "is_due"),
    [
        (httpx.Response(200), False),
        (httpx.Response(200, text="ok"), False),
        (httpx.Response(200, json={"is_renewal_due": True, "more": 1}), True),
    ],
    ids=["the original's", "some text", "ours"],
)
def test_report_gives_what_ground_control_has_to_say(answer: httpx.Response, is_due: bool) -> None:  # noqa: FBT001
    with Peer(answer).client() as client:
        said = client.report(StatusReport(name="shop"), "robot$shop", SecretStr(SECRET))

    assert said.is_renewal_due is is_due


def test_renew_answer_of_another_shape_is_refused_without_its_secret() -> None:
    peer = Peer(httpx.Response(200, json={"password": SECRET, "username": 7}))

    with peer.client() as client, pytest.raises(UntrustedDataError) as caught:
        client.renew("robot$shop", SecretStr("old"), SecretStr(KEY))

    assert SECRET not in "".join(traceback.format_exception(caught.value))
