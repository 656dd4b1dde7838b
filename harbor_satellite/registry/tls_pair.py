"""Whether a server's certificate and key belong together, and under which name a client will believe them.

A handshake in memory says so: the same code decides that will decide later, and no certificate is parsed here.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.registry.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# X509_V_FLAG_NO_CHECK_TIME: a certificate that ran out is no reason to stop serving, and clients will say it.
_ANY_TIME: Final = 0x200000
_TURNS: Final = 10
"""Of a handshake; TLS 1.3 takes three."""


def believed_name(certificate: Path, key: Path, ca: Path | None, names: Sequence[str]) -> str:
    """Return the first of the names under which a client will talk to this server.

    Args:
        certificate: PEM, of the server, with what stands between it and its authority.
        key: PEM, without a passphrase.
        ca: what clients trust besides the usual authorities; None: the certificate file itself.
        names: host names and addresses by which the server can be reached.

    Raises:
        InvalidInputError: the files cannot be read or do not belong together, or no name is believed.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key, password=_no_passphrase)
    except OSError as error:  # SSLError is one
        raise InvalidInputError(f"certificate {certificate} with key {key} cannot be used: {error}") from error
    client = tls_context(str(ca or certificate))
    client.verify_flags |= _ANY_TIME
    reasons = []
    for name in names:
        try:
            _shake_hands(server, client, name)
        except (ssl.SSLError, ValueError) as error:
            reasons.append(f"{name}: {getattr(error, 'verify_message', '') or error}")
        else:
            return name
    raise InvalidInputError(
        f"the site would not believe its own registry's certificate {certificate} ({'; '.join(reasons)}): "
        "it must name one of these, and HARBOR_SATELLITE_LOCAL_REGISTRY_CA its authority"
    )


def _no_passphrase() -> str:
    return ""  # else OpenSSL would ask at the terminal


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(_TURNS):
        try:
            asking.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            return
        try:
            answering.do_handshake()
        except ssl.SSLWantReadError:
            continue
