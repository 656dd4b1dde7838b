from __future__ import annotations

import json
import logging
import ssl
from datetime import UTC, datetime

import httpx
import pytest

from harbor_satellite.registry.client_errors import parse_complaint, parse_retry_after, refusal, unreachable
from harbor_satellite.registry.client_logs import hide_queries

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_refusal_passing_status_is_retryable(status: int) -> None:
    assert refusal("pull x", status, {}, b"").retryable


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 501, 507])
def test_refusal_lasting_status_is_not_retryable(status: int) -> None:
    assert not refusal("pull x", status, {}, b"").retryable


def test_refusal_says_what_the_registry_said() -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no\nway " + "x" * 1000}, {"code": "OTHER"}]}).encode()

    message = str(refusal("push a/b:1 to registry.example", 403, {}, body))

    assert message.startswith("push a/b:1 to registry.example: refused with status 403: DENIED: no way xxx")
    assert len(message) < 400


def test_refusal_zot_is_full_is_not_retryable() -> None:
    # Recorded from Zot 2.1.20 with maxRepos 1.
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"too many requests","detail":{"limit":"1"}}]}'

    error = refusal("push manifest", 429, {}, body)

    assert not error.retryable
    assert "maximum of 1 repositories" in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"errors":null}', b'{"errors":["x"]}', b'{"errors":[{"detail":[]}]}', b"[" * 9999]
)
def test_parse_complaint_anything_is_survived(body: bytes) -> None:
    assert str(parse_complaint(body)) == ""


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("999999", 3600.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2026 00:01:00 -0000", 60.0),
        ("", None),
        ("-1", None),
        ("soon", None),
    ],
)
def test_parse_retry_after(header: str, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds


def test_unreachable_leaves_urls_out() -> None:
    error = httpx.ConnectError("GET https://store.example/x?signature=secret failed")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")

    translated = unreachable("pull x", error)

    assert str(translated) == "pull x: ConnectError: Connection refused"
    assert (translated.retryable, translated.status) == (True, None)


def test_unreachable_certificate_not_trusted_is_not_retryable() -> None:
    cause = ssl.SSLCertVerificationError(1, "x")
    cause.verify_message = "self-signed certificate"
    error = httpx.ConnectError("x")
    error.__cause__ = cause

    translated = unreachable("pull x", error)

    assert not translated.retryable
    assert "not trusted: self-signed certificate" in str(translated)


def test_hide_queries_of_both_libraries(caplog: pytest.LogCaptureFixture) -> None:
    hide_queries()
    for name in ("httpx", "urllib3.connectionpool"):  # a command run in this process before quietens httpx
        caplog.set_level(logging.DEBUG, logger=name)

    logging.getLogger("httpx").info("%s %s %d", "GET", httpx.URL("https://s.example/x?signature=secret"), 200)
    logging.getLogger("urllib3.connectionpool").debug("%s %s", "s.example", "/x?signature=secret")

    assert caplog.messages == ["GET https://s.example/x 200", "s.example /x"]
