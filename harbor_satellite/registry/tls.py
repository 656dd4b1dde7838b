"""Which certificates are trusted.

What lives here: TLS settings, made once and only if something is spoken to over TLS. What must not: connections.
"""

from __future__ import annotations

import logging
import os
import ssl
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import urllib3

from harbor_satellite.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)


def tls_context(verify: bool | str) -> ssl.SSLContext:  # noqa: FBT001 - the word every HTTP client uses
    """Make TLS settings for either HTTP library: True, False, or a CA file to trust besides the usual ones.

    Raises:
        InvalidInputError: the CA file cannot be read or holds no certificate.
    """
    try:
        context = httpx.create_ssl_context(verify=verify is not False)
    except OSError as error:
        raise InvalidInputError(f"the usual CA certificates (SSL_CERT_FILE) cannot be used: {error}") from error
    if verify is False:
        # One line of our own for each client instead of urllib3's warning for each connection.
        _log.warning("certificates are not verified: anybody on the way can read and change what passes")
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    if isinstance(verify, str):
        _trust(context, verify)
    return context


def lazy_tls_context(verify: bool | str) -> Callable[[], ssl.SSLContext]:  # noqa: FBT001 - as above
    """Return what makes the TLS settings when they are needed: reading all authorities takes 30 ms.

    Who trusts the same shares them; a CA file that has changed is read again.

    Raises:
        InvalidInputError: the CA file cannot be read or holds no certificate.
    """
    if verify is False:
        context = tls_context(verify)
        return lambda: context
    if isinstance(verify, str):
        _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), verify)
    return partial(_shared_context, verify, _mark(verify))


def _trust(context: ssl.SSLContext, file: str) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(f"CA file {file!r} cannot be used: {error}") from error


@lru_cache(maxsize=8)
def _shared_context(verify: bool | str, _mark: tuple[object, ...]) -> ssl.SSLContext:  # noqa: FBT001 - as above
    return tls_context(verify)


def _mark(verify: bool | str) -> tuple[object, ...]:  # noqa: FBT001 - as above
    """Tell one content of the trusted files from another."""
    named = [os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"), verify if isinstance(verify, str) else ""]
    marks: list[object] = []
    for file in filter(None, named):
        try:
            status = Path(file).stat()
        except OSError:
            marks.append(file)
        else:
            marks += [file, status.st_mtime_ns, status.st_size, status.st_ino]
    return tuple(marks)
