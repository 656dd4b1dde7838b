"""The token dance: which ``Authorization`` a request to a registry carries.

What lives here: credentials, challenges, tokens and their life. What must not: sockets; the client hands in how to
ask, so that the dance is the same for every HTTP library and runs in tests without a network.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx

from harbor_satellite.errors import RemoteError, SizeLimitError, UntrustedDataError
from harbor_satellite.oci.challenge import parse_challenges
from harbor_satellite.registry.client_errors import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import SecretStr

    from harbor_satellite.oci.challenge import Challenge

AUTH_RESPONSE_MAX_BYTES: Final = 64 * 1024  # bytes; the largest token met is below 5 KiB
DEFAULT_TOKEN_SECONDS: Final = 60.0  # distribution, docs/spec/auth/token.md: what a silent expires_in means
_TOKEN_MAX_SECONDS: Final = 86400
_MARGIN_MAX_SECONDS: Final = 30.0  # a token this close to its end is not used for another request
_RENEWAL_MIN_SECONDS: Final = 5.0  # a refused token younger than this was not refused for its age
_TOKENS_MAX: Final = 2048  # one for each repository and set of actions; the oldest go first
CATALOG_SCOPE: Final = "registry:catalog:*"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name (robot account) and its secret."""

    username: str
    password: SecretStr

    @property
    def basic(self) -> str:
        """The value of ``Authorization`` for HTTP Basic."""
        pair = f"{self.username}:{self.password.get_secret_value()}"
        return "Basic " + base64.b64encode(pair.encode()).decode()


class TokenRequest(NamedTuple):
    """A GET that the client is to make at a token service; not redirected, at most 64 KiB are read."""

    url: httpx.URL
    authorization: str | None


class TokenReply(NamedTuple):
    """How the token service answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Realm(NamedTuple):
    url: httpx.URL
    service: str


class _Token(NamedTuple):
    authorization: str
    scopes: frozenset[str]
    asked_at: float
    good_until: float

    def is_pointless_to_renew(self, scopes: frozenset[str], now: float) -> bool:
        """Whether the same question was answered just now: Harbor gives empty tokens to wrong credentials."""
        return self.scopes == scopes and now - self.asked_at < _RENEWAL_MIN_SECONDS


def repository_scope(repository: str, actions: str) -> str:
    """Write a scope as token services read it; actions are ``pull``, ``pull,push`` or ``delete``."""
    return f"repository:{repository}:{actions}"


class Authorizer:
    """Gives requests to one registry their ``Authorization``; safe to use from many threads.

    What a registry asks for is learned from its first challenge; from then on tokens are fetched before a request
    instead of after its refusal. Each set of scopes has one token, fetched by one thread while the others wait.

    Args:
        registry_url: the registry's scheme, host and port; a realm may not be less secure than it.
        credentials: None to go without, by anonymous tokens where the registry wants tokens.
        fetch: makes one ``TokenRequest``; raises ``RemoteError`` when the service cannot be reached.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        registry_url: httpx.URL,
        credentials: Credentials | None,
        fetch: Callable[[TokenRequest], TokenReply],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry_url = registry_url
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._fetch_locks: dict[frozenset[str], threading.Lock] = {}
        self._tokens: dict[frozenset[str], _Token] = {}
        self._wanted: dict[frozenset[str], frozenset[str]] = {}
        self._realm: _Realm | None = None
        self._basic = False
        self._learned = False

    @property
    def should_ask(self) -> bool:
        """Whether there are credentials but no challenge was seen yet.

        Without a challenge a registry would answer as to anybody, and some then hide things instead of refusing.
        """
        return self._credentials is not None and not self._learned

    def learn(self, www_authenticate: Iterable[str]) -> None:
        """Take in the challenges of any answer; an answer without any says that nothing is asked.

        Raises:
            RemoteError: the realm is not one that may be asked.
        """
        challenge = _choose(www_authenticate, has_credentials=self._credentials is not None)
        realm = self._check_realm(challenge) if challenge and challenge.scheme == "bearer" else None
        with self._lock:
            self._learned = True
            if challenge is not None:
                self._realm = realm
                self._basic = realm is None

    def authorization(self, scopes: frozenset[str]) -> str | None:
        """Return what to send with a request that needs ``scopes``; None to send nothing.

        Raises:
            RemoteError: a token is needed and the token service refuses or cannot be reached.
            UntrustedDataError: the token service answered with something else.
        """
        with self._lock:
            realm, basic = self._realm, self._basic
        if basic:
            return self._credentials.basic if self._credentials else None
        if realm is None:
            return None
        return self._token(realm, scopes, rejected=None)

    def after_refusal(
        self, www_authenticate: Iterable[str], scopes: frozenset[str], rejected: str | None
    ) -> str | None:
        """Return what to send after a 401; None if there is nothing better than what was ``rejected``.

        Raises:
            RemoteError: as ``authorization``, or the realm is not one that may be asked.
            UntrustedDataError: as ``authorization``.
        """
        headers = tuple(www_authenticate)
        self.learn(headers)
        challenge = _choose(headers, has_credentials=self._credentials is not None)
        if challenge is not None and challenge.scheme == "bearer":
            asked = frozenset(challenge.parameters.get("scope", "").split())
            with self._lock:
                self._wanted[scopes] = _merge(scopes, asked)
        with self._lock:
            realm, basic = self._realm, self._basic
        if basic:
            offer = self._credentials.basic if self._credentials else None
            return offer if offer != rejected else None
        return self._token(realm, scopes, rejected=rejected) if realm else None

    def forget(self, rejected: str | None) -> None:
        """Drop a token that was refused where the request cannot be made again at once."""
        with self._lock:
            for scopes in [key for key, token in self._tokens.items() if token.authorization == rejected]:
                del self._tokens[scopes]

    def _token(self, realm: _Realm, scopes: frozenset[str], rejected: str | None) -> str | None:
        with self._lock:
            fetch_lock = self._fetch_locks.setdefault(scopes, threading.Lock())
        with fetch_lock:
            with self._lock:
                token = self._tokens.get(scopes)
                wanted = self._wanted.get(scopes, scopes)
            now = self._clock()
            if token and token.authorization == rejected and token.is_pointless_to_renew(wanted, now):
                return None
            if token and token.authorization != rejected and now < token.good_until:
                return token.authorization
            token = self._fetch_token(realm, wanted)
            with self._lock:
                self._tokens.pop(scopes, None)
                self._tokens[scopes] = token
                while len(self._tokens) > _TOKENS_MAX:
                    oldest = next(iter(self._tokens))
                    del self._tokens[oldest]
                    self._fetch_locks.pop(oldest, None)
                    self._wanted.pop(oldest, None)
            return token.authorization

    def _fetch_token(self, realm: _Realm, scopes: frozenset[str]) -> _Token:
        url = realm.url.copy_add_param("service", realm.service) if realm.service else realm.url
        for scope in sorted(scopes):
            url = url.copy_add_param("scope", scope)
        asked_at = self._clock()
        reply = self._fetch(TokenRequest(url, self._credentials.basic if self._credentials else None))
        what = f"get a token for {self._registry_url.host} from {realm.url.host}"
        if reply.status != httpx.codes.OK:
            raise refusal(what, reply.status, reply.headers, reply.body)
        if len(reply.body) > AUTH_RESPONSE_MAX_BYTES:
            raise SizeLimitError(f"{what}: the answer is larger than {AUTH_RESPONSE_MAX_BYTES} bytes")
        text, lifetime = _parse_token(reply.body, what)
        margin = min(_MARGIN_MAX_SECONDS, lifetime / 4)
        return _Token(f"Bearer {text}", scopes, asked_at, asked_at + lifetime - margin)

    def _check_realm(self, challenge: Challenge) -> _Realm:
        what = f"authenticate to {self._registry_url.host}"
        try:
            url = httpx.URL(challenge.parameters.get("realm", ""))
        except httpx.InvalidURL as error:
            raise RemoteError(f"{what}: its token service's address cannot be read", status=401) from error
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise RemoteError(f"{what}: its token service is not at an http or https address", status=401)
        if self._registry_url.scheme == "https" and url.scheme != "https":
            raise RemoteError(f"{what}: its token service at {url.host} is without TLS; refused", status=401)
        return _Realm(url.copy_with(fragment=None), challenge.parameters.get("service", ""))


def _choose(www_authenticate: Iterable[str], *, has_credentials: bool) -> Challenge | None:
    challenges = [challenge for header in www_authenticate for challenge in parse_challenges(header)]
    bearer = next((one for one in challenges if one.scheme == "bearer" and one.parameters.get("realm")), None)
    basic = next((one for one in challenges if one.scheme == "basic"), None)
    # A token is good for one repository and some minutes, a password for everything: prefer the token.
    return bearer or (basic if has_credentials else None)


def _merge(scopes: frozenset[str], asked: frozenset[str]) -> frozenset[str]:
    """Add what the registry asks for beyond what we would; a scope it words in full is not asked for twice."""
    actions: dict[str, set[str]] = {}
    for scope in scopes | asked:
        resource, _, names = scope.rpartition(":")
        actions.setdefault(resource, set()).update(names.split(","))
    # "pull" before "push" is how registries write it themselves; some compare the text.
    return frozenset(f"{resource}:{','.join(sorted(names))}" for resource, names in actions.items())


def _parse_token(body: bytes, what: str) -> tuple[str, float]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UntrustedDataError(f"{what}: the answer is not JSON") from error
    if not isinstance(document, dict):
        raise UntrustedDataError(f"{what}: the answer is not a JSON object")
    # Harbor sends both names and leaves access_token empty.
    text = document.get("token") or document.get("access_token")
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
        raise UntrustedDataError(f"{what}: the answer holds no token")
    lifetime = document.get("expires_in")
    if isinstance(lifetime, int | float) and not isinstance(lifetime, bool) and lifetime > 0:
        return text, float(min(lifetime, _TOKEN_MAX_SECONDS))
    return text, DEFAULT_TOKEN_SECONDS
