"""What tests of the site's processes share."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def occupied_port() -> Iterator[int]:
    """Give a loopback port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def make_pair(folder: Path, names: str) -> tuple[Path, Path]:
    """Return a certificate that is its own authority, for names as OpenSSL writes them, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: there is no program 'openssl' on PATH")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=test", "-addext", f"subjectAltName={names}"]
    command = ["openssl", "req", *kind, *name, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
