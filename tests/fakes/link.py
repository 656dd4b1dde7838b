"""A WAN on loopback, between a client and a source: latency, width, cuts, silence, and what went over it.

    with link(source.host, rtt_seconds=0.05, bytes_per_second=12_500_000) as wan:
        ...  # use wan.url in place of the source's URL
        wan.cut()
        assert wan.counters().requests < 9

The line itself is a process of its own (``link_proxy.py``). Times are real: half of the round trip passes each
way, and the first byte of a connection waits for the round trip of its making. All connections share the width.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_PROJECT: Final = Path(__file__).resolve().parents[2]
_STOP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What went over a line since it was made, or since ``reset``."""

    bytes_to_client: int
    """HTTP heads and bodies that reached the client; without the headers of TCP and IP."""
    bytes_from_client: int
    connections: int
    requests: int
    """HTTP/1.1 requests; zero where the connection is TLS."""


class Link:
    """The line; a context manager. Its methods act on all connections, and return when that is done."""

    def __init__(
        self, target_host: str, target_port: int, *, rtt_seconds: float = 0.0, bytes_per_second: int | None = None
    ) -> None:
        """Start nothing yet.

        Args:
            target_host: the server behind the line: a name or an IPv4 address.
            target_port: its port.
            rtt_seconds: round trip time.
            bytes_per_second: width towards the client, shared by all connections; None: no limit.
        """
        self._target = f"{target_host}:{target_port}"
        self._shape = {"rtt_seconds": rtt_seconds, "bytes_per_second": bytes_per_second}
        self._process: subprocess.Popen[str] | None = None
        self.host = ""
        """``host:port`` for clients."""

    @property
    def url(self) -> str:
        """The line's near end, in place of the server's URL."""
        return f"http://{self.host}"

    def __enter__(self) -> Self:
        command = (sys.executable, "-m", "tests.fakes.link_proxy", self._target)
        self._process = subprocess.Popen(
            command, cwd=_PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.host = self._answer()
        self.shape(**self._shape)  # type: ignore[arg-type]  # the same two
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            with self._process as process:
                process.kill()
                process.wait(_STOP_SECONDS)

    def shape(self, *, rtt_seconds: float = 0.0, bytes_per_second: int | None = None) -> None:
        """Change latency and width; the latency holds for connections made from now on."""
        self._do("shape", rtt_seconds=rtt_seconds, bytes_per_second=bytes_per_second)

    def cut(self, *, is_reset: bool = True) -> None:
        """End all connections now, by RST or else by FIN; new ones may be made at once."""
        self._do("cut", is_reset=is_reset)

    def cut_at(self, *counts: int) -> None:
        """Cut each time when so many bytes (in all, since the last ``reset``) have gone to the client."""
        self._do("cut_at", counts=counts)

    def down(self) -> None:
        """End all connections and refuse new ones, until ``up``."""
        self._do("down")

    def hang(self) -> None:
        """Take connections and bytes, and carry nothing, until ``up``."""
        self._do("hang")

    def up(self) -> None:
        """End ``down`` or ``hang``; what hung goes on."""
        self._do("up")

    def counters(self) -> Counters:
        """Return what went over the line."""
        return Counters(**self._do("counters"))

    def requests(self) -> list[str]:
        """Return the requests that went over the line, each as ``METHOD target``."""
        return list(self._do("requests"))

    def reset(self) -> None:
        """Set the counters to zero and forget the cuts that were ordered."""
        self._do("reset")

    def _do(self, order: str, **arguments: object) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": order, **arguments}) + "\n")
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the line to {self._target} broke down; its traceback is above")
        return json.loads(line)


def link(target: str, *, rtt_seconds: float = 0.0, bytes_per_second: int | None = None) -> Link:
    """Make a line to ``host:port``, or to the server of an ``http://`` URL."""
    host, _, port = target.split("://", 1)[-1].partition("/")[0].rpartition(":")
    return Link(host, int(port), rtt_seconds=rtt_seconds, bytes_per_second=bytes_per_second)
