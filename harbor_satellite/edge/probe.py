"""One request to a service, and whether all of an answer came in time.

By hand on a socket: ``http.client`` brings the e-mail parser along, and its time-out starts anew with every byte,
so that a peer that dribbles would pass for a living one. TLS is imported where it is spoken.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult

    from harbor_satellite.edge.services import Probe

_ENOUGH_BYTES: Final = 1024 * 1024
"""Who has sent so much is no silent peer."""
_HEAD_MAX_BYTES: Final = 64 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80
_ANY_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME


class Asker:
    """Asks one process in threads, one question at a time."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._answer: bool | None = None

    def ask(self, probe: Probe) -> None:
        """Ask, unless a question is still open."""
        if self._thread and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._run, args=(probe,), daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no room for a thread: nobody was asked
            self._thread = None

    def take(self) -> bool | None:
        """Return whether the question that was open last was answered, once; None: nothing new."""
        answer, self._answer = self._answer, None
        return answer

    def _run(self, probe: Probe) -> None:
        self._answer = is_answered(probe)
        self._wake()


def is_answered(probe: Probe) -> bool:
    """Return whether a whole HTTP answer came within the probe's time, whatever it said.

    A refused connection, a broken answer and silence are all the same: False.
    """
    deadline = time.monotonic() + probe.timeout_seconds
    try:
        return _ask(probe, deadline)
    except (OSError, ValueError):  # ssl's errors are OSErrors; a URL that is none is a ValueError
        return False


def _ask(probe: Probe, deadline: float) -> bool:
    url = urlsplit(probe.url)
    is_tls = url.scheme == "https"
    address = (probe.address or url.hostname or "", url.port or (_HTTPS_PORT if is_tls else _HTTP_PORT))
    with socket.create_connection(address, timeout=_left(deadline)) as plain:
        if is_tls:
            return _is_answered_over_tls(plain, url, probe, deadline)
        return _is_request_answered(plain, url, probe, deadline)


def _is_answered_over_tls(plain: socket.socket, url: SplitResult, probe: Probe, deadline: float) -> bool:
    import ssl  # noqa: PLC0415  (6 MB of a process that is to be small)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if probe.certificate:
        # The certificate is trusted itself, whoever issued it, for its names and at any time: one that has run out is
        # no reason to end who serves by it, the clients will say it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _ANY_TIME
        with contextlib.suppress(OSError):  # the file is being replaced: nobody is trusted
            context.load_verify_locations(probe.certificate)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    plain.settimeout(_left(deadline))
    try:
        channel = context.wrap_socket(plain, server_hostname=url.hostname)
    except ssl.SSLCertVerificationError:
        # It lives, with another certificate: the file may be newer than the process. A stranger is told no password.
        return True
    with channel:
        return _is_request_answered(channel, url, probe, deadline)


def _is_request_answered(channel: socket.socket, url: SplitResult, probe: Probe, deadline: float) -> bool:
    target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    lines = [f"GET {target} HTTP/1.0", f"Host: {url.netloc.rpartition('@')[2]}", "User-Agent: harbor-satellite"]
    lines += [f"{name}: {value}" for name, value in probe.headers.items()]
    channel.settimeout(_left(deadline))
    channel.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    return _reads_answer(channel, deadline)


def _reads_answer(channel: socket.socket, deadline: float) -> bool:
    received = bytearray()
    while len(received) < _ENOUGH_BYTES:
        channel.settimeout(_left(deadline))
        chunk = channel.recv(_CHUNK_BYTES)
        received += chunk
        whole = _whole_bytes(received)
        if whole is not None and len(received) >= whole:
            return True
        if not chunk:  # closed: the end of an answer without a length, or half of one with
            return whole is None and received.startswith(b"HTTP/") and b"\r\n\r\n" in received
    return received.startswith(b"HTTP/")


def _whole_bytes(received: bytearray) -> int | None:
    """Return how long the answer will be; None: not known, or only its end tells."""
    head, separator, _ = bytes(received[:_HEAD_MAX_BYTES]).partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"HTTP/"):
        return None
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return len(head) + len(separator) + int(value)
    return None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
