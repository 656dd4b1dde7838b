from __future__ import annotations

import ssl
from pathlib import Path

import certifi
import pytest

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.tls import lazy_tls_context
from tests.fakes.registry import FakeRegistry

_END = "-----END CERTIFICATE-----"


def certificates(count: int) -> str:
    text = Path(certifi.where()).read_text(encoding="ascii", errors="ignore")
    return "".join(f"{part}{_END}" for part in text.split(_END)[:count])


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_text(certificates(1))
    return file


def test_lazy_tls_context_same_trust_is_shared(ca_file: Path) -> None:
    assert lazy_tls_context(str(ca_file))() is lazy_tls_context(str(ca_file))()
    assert lazy_tls_context(str(ca_file))() is not lazy_tls_context(True)()


def test_lazy_tls_context_ca_file_changed_is_read_again(ca_file: Path) -> None:
    before = lazy_tls_context(str(ca_file))()

    ca_file.write_text(certificates(2))

    assert lazy_tls_context(str(ca_file))() is not before


def test_lazy_tls_context_not_verifying_trusts_anybody() -> None:
    assert lazy_tls_context(False)().verify_mode == ssl.CERT_NONE


def test_registry_over_plain_http_needs_no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")

    with FakeRegistry().serving() as url, HttpRegistry(url) as registry:
        assert registry.tag_list("acme/app") == ()


def test_registry_over_tls_without_authorities_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")

    with HttpRegistry("https://127.0.0.1:1") as registry, pytest.raises(InvalidInputError, match="SSL_CERT_FILE"):
        registry.tag_list("acme/app")


def test_registry_ca_file_without_certificate_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")

    with pytest.raises(InvalidInputError, match="CA file"):
        HttpRegistry("http://127.0.0.1:1", verify=str(file))
