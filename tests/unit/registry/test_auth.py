from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import RemoteError, SizeLimitError, UntrustedDataError
from harbor_satellite.registry.auth import Authorizer, Credentials, TokenReply, TokenRequest, repository_scope

PULL = frozenset({repository_scope("acme/app", "pull")})
PUSH = frozenset({repository_scope("acme/app", "pull,push")})
CREDENTIALS = Credentials("robot$edge", SecretStr("made-up"))
BEARER = 'Bearer realm="https://auth.example/token?x=1",service="fake",scope="repository:acme/app:pull"'


class TokenService:
    """Hands out numbered tokens and remembers what it was asked."""

    def __init__(self, **document: object) -> None:
        self.document = document
        self.asked: list[TokenRequest] = []
        self.reply: TokenReply | None = None
        self.now = 1000.0
        self._lock = threading.Lock()

    def fetch(self, request: TokenRequest) -> TokenReply:
        with self._lock:
            self.asked.append(request)
            document = {"token": f"t{len(self.asked)}", **self.document}
        return self.reply or TokenReply(200, {}, json.dumps(document).encode())

    def clock(self) -> float:
        return self.now


def authorizer(
    service: TokenService, url: str = "https://registry.example", credentials: Credentials | None = CREDENTIALS
) -> Authorizer:
    return Authorizer(httpx.URL(url), credentials, service.fetch, clock=service.clock)


def test_authorization_nothing_asked_is_none() -> None:
    subject = authorizer(TokenService())

    before = subject.should_ask
    subject.learn([])

    assert (before, subject.should_ask) == (True, False)
    assert subject.authorization(PULL) is None


def test_authorization_bearer_asks_once_with_service_and_scope() -> None:
    service = TokenService()
    subject = authorizer(service)
    subject.learn([BEARER])

    given = [subject.authorization(PULL) for _ in range(3)]

    assert given == ["Bearer t1"] * 3
    (asked,) = service.asked
    assert asked.authorization == CREDENTIALS.basic
    assert asked.url.params.multi_items() == [("x", "1"), ("service", "fake"), ("scope", "repository:acme/app:pull")]


def test_authorization_several_scopes_are_several_parameters() -> None:
    service = TokenService()
    subject = authorizer(service)
    subject.learn([BEARER])

    subject.authorization(PUSH | {repository_scope("acme/base", "pull")})

    scopes = service.asked[0].url.params.get_list("scope")
    assert scopes == ["repository:acme/app:pull,push", "repository:acme/base:pull"]


def test_authorization_no_credentials_asks_anonymously() -> None:
    service = TokenService()
    subject = authorizer(service, credentials=None)

    assert not subject.should_ask
    assert subject.after_refusal([BEARER], PULL, None) == "Bearer t1"
    assert service.asked[0].authorization is None


@pytest.mark.parametrize(
    ("document", "good_at", "old_at"),
    [
        ({}, 44, 46),
        ({"expires_in": 1800}, 1769, 1771),
        ({"expires_in": 8}, 5, 7),
        ({"expires_in": "soon"}, 44, 46),
        ({"expires_in": -1}, 44, 46),
        ({"expires_in": True}, 44, 46),
        ({"expires_in": 10**400}, 86_300, 86_399),
    ],
    ids=["silent", "harbor", "short", "text", "negative", "boolean", "absurd"],
)
def test_authorization_token_is_renewed_before_its_end(document: dict[str, object], good_at: int, old_at: int) -> None:
    service = TokenService(**document)
    subject = authorizer(service)
    subject.learn([BEARER])
    subject.authorization(PULL)

    service.now = 1000.0 + good_at
    assert subject.authorization(PULL) == "Bearer t1"
    service.now = 1000.0 + old_at
    assert subject.authorization(PULL) == "Bearer t2"


def test_authorization_many_threads_fetch_one_token_for_each_scope() -> None:
    service = TokenService()
    subject = authorizer(service)
    subject.learn([BEARER])

    with ThreadPoolExecutor(8) as pool:
        given = set(pool.map(lambda number: subject.authorization(PULL if number % 2 else PUSH), range(64)))

    assert len(given) == len(service.asked) == 2


@pytest.mark.parametrize(
    "document",
    [{"token": "", "access_token": "other"}, {"token": None, "access_token": "other"}],
    ids=["empty", "null"],
)
def test_authorization_reads_access_token_too(document: dict[str, object]) -> None:
    subject = authorizer(TokenService(**document))
    subject.learn([BEARER])

    assert subject.authorization(PULL) == "Bearer other"


def test_authorization_basic_sends_credentials() -> None:
    subject = authorizer(TokenService())

    assert subject.after_refusal(['Basic realm="zot"'], PULL, None) == CREDENTIALS.basic
    assert subject.authorization(PUSH) == CREDENTIALS.basic
    assert subject.after_refusal(['Basic realm="zot"'], PULL, CREDENTIALS.basic) is None


def test_authorization_basic_without_credentials_has_nothing() -> None:
    subject = authorizer(TokenService(), credentials=None)

    assert subject.after_refusal(['Basic realm="zot"'], PULL, None) is None


def test_after_refusal_of_old_token_gets_another() -> None:
    service = TokenService()
    subject = authorizer(service)
    subject.learn([BEARER])
    rejected = subject.authorization(PULL)
    service.now += 20

    assert subject.after_refusal([BEARER], PULL, rejected) == "Bearer t2"
    assert subject.authorization(PULL) == "Bearer t2"


def test_after_refusal_of_fresh_token_gives_up() -> None:
    service = TokenService()
    subject = authorizer(service)
    subject.learn([BEARER])
    rejected = subject.authorization(PULL)

    assert subject.after_refusal([BEARER], PULL, rejected) is None
    assert len(service.asked) == 1


def test_after_refusal_registry_names_another_scope_asks_for_both() -> None:
    service = TokenService()
    subject = authorizer(service)
    subject.learn([BEARER])
    rejected = subject.authorization(PULL)
    header = BEARER.replace("acme/app:pull", "acme/app:pull,push repository:acme/base:pull")

    assert subject.after_refusal([header], PULL, rejected) == "Bearer t2"
    scopes = service.asked[1].url.params.get_list("scope")
    assert scopes == ["repository:acme/app:pull,push", "repository:acme/base:pull"]


def test_forget_drops_only_that_token() -> None:
    service = TokenService()
    subject = authorizer(service)
    subject.learn([BEARER])
    pull, push = subject.authorization(PULL), subject.authorization(PUSH)

    subject.forget(push)

    assert subject.authorization(PULL) == pull
    assert subject.authorization(PUSH) == "Bearer t3"


@pytest.mark.parametrize(
    ("realm", "message"),
    [
        ("http://auth.example/token", "without TLS"),
        ("ftp://auth.example/token", "not at an http or https address"),
        ("https://user:secret@auth.example/token", "not at an http or https address"),
        ("/service/token", "not at an http or https address"),
        ("https://auth.example:bad/token", "cannot be read"),
    ],
    ids=["downgrade", "scheme", "userinfo", "relative", "malformed"],
)
def test_learn_realm_is_not_trusted(realm: str, message: str) -> None:
    service = TokenService()
    subject = authorizer(service)

    with pytest.raises(RemoteError, match=message) as caught:
        subject.learn([f'Bearer realm="{realm}"'])

    assert "secret" not in str(caught.value)
    assert service.asked == []


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b'{"token": 1}', b'{"token": "a b"}', b'{"token": "a\\r\\nb"}', b"{}"],
    ids=["html", "list", "number", "space", "newline", "nothing"],
)
def test_authorization_answer_without_token_is_untrusted(body: bytes) -> None:
    service = TokenService()
    service.reply = TokenReply(200, {}, body)
    subject = authorizer(service)
    subject.learn([BEARER])

    with pytest.raises(UntrustedDataError, match=r"get a token for registry\.example from auth\.example"):
        subject.authorization(PULL)


def test_authorization_answer_too_large_is_refused() -> None:
    service = TokenService()
    service.reply = TokenReply(200, {}, b"x" * (64 * 1024 + 1))
    subject = authorizer(service)
    subject.learn([BEARER])

    with pytest.raises(SizeLimitError):
        subject.authorization(PULL)


@pytest.mark.parametrize(("status", "is_retryable"), [(401, False), (403, False), (429, True), (503, True)])
def test_authorization_service_refuses(status: int, is_retryable: bool) -> None:  # noqa: FBT001 - table
    service = TokenService()
    service.reply = TokenReply(status, {"retry-after": "7"}, b'{"errors":[{"code":"X","message":"no"}]}')
    subject = authorizer(service)
    subject.learn([BEARER])

    with pytest.raises(RemoteError, match=f"status {status}: X: no") as caught:
        subject.authorization(PULL)

    assert (caught.value.retryable, caught.value.retry_after_seconds) == (is_retryable, 7.0)


def test_credentials_repr_hides_the_password() -> None:
    assert "made-up" not in repr(CREDENTIALS)
