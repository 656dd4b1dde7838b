"""One-time tokens, session tokens, API tokens and satellite secrets: make, hash, compare. Pure but for randomness.

All of them are long and random, so one round of sha256 is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from typing import Final

from pydantic import SecretStr

_TOKEN_BYTES: Final = 32
_SESSION_BYTES: Final = 64  # 88 characters in base64, as the original's clients know them
API_TOKEN_PREFIX: Final = "hs_"  # noqa: S105  (what they all begin with)
"""How an API token begins, so that people and scanners of secrets know one when they see it."""
_LONGEST: Final = 512  # characters; nothing of ours is longer, and hashing megabytes is work for an attacker to order


def mint_token() -> SecretStr:
    """Make a one-time token or a satellite's secret: 32 random bytes, safe in a URL."""
    return SecretStr(secrets.token_urlsafe(_TOKEN_BYTES))


def mint_session_token() -> SecretStr:
    """Make a session's bearer token: 64 random bytes in 88 characters."""
    return SecretStr(urlsafe_b64encode(secrets.token_bytes(_SESSION_BYTES)).decode())


def mint_api_token() -> SecretStr:
    """Make an API token: a prefix that tells what it is, and 32 random bytes."""
    return SecretStr(API_TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES))


def hash_token(token: SecretStr) -> str:
    """Return what is stored of a token: the hex of its sha256."""
    clear = token.get_secret_value()[:_LONGEST]
    return hashlib.sha256(clear.encode(errors="surrogatepass")).hexdigest()


def verify_token(token: SecretStr, stored_hash: str | None) -> bool:
    """Tell in constant time whether a token is the one that was stored; nothing equals no hash."""
    if stored_hash is None or len(token.get_secret_value()) > _LONGEST:
        return False
    return hmac.compare_digest(hash_token(token), stored_hash)
