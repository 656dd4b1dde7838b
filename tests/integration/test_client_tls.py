"""The HTTP client and certificates: both HTTP libraries must trust, and refuse, the same."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import RemoteError
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client import HttpRegistry
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPOSITORY = "acme/app"
BLOB = Descriptor("x", Digest.of(b"content"), 7)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: there is no program 'openssl' on PATH")
    file = tmp_path / "both.pem"
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", *kind, *names, "-keyout", str(file), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    with file.open("a") as both:
        both.write((tmp_path / "cert.pem").read_text())
    return file


@pytest.fixture
def url(certificate: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FakeRegistry().serving(context) as url:
        yield url


@pytest.mark.parametrize("is_verified", [True, False], ids=["own CA", "any"])
def test_tls_trusted_moves_blobs_and_lists(url: str, certificate: Path, *, is_verified: bool) -> None:
    verify = str(certificate.parent / "cert.pem") if is_verified else False

    with HttpRegistry(url, verify=verify) as registry:
        registry.blob_put(REPOSITORY, BLOB, [b"content"])
        with registry.blob_get(REPOSITORY, BLOB.digest) as stream:
            assert b"".join(stream) == b"content"


def test_tls_unknown_certificate_is_refused_for_good(url: str) -> None:
    with HttpRegistry(url) as registry:
        with pytest.raises(RemoteError, match="not trusted") as of_api:
            registry.tag_list(REPOSITORY)
        with pytest.raises(RemoteError, match="not trusted") as of_blobs, registry.blob_get(REPOSITORY, BLOB.digest):
            pass

    assert not of_api.value.retryable
    assert not of_blobs.value.retryable
