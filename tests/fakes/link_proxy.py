"""The program behind ``tests.fakes.link``: a TCP proxy on loopback with the latency, width and faults of a WAN.

It runs as a process of its own, so that whoever is measured shares no interpreter lock with it, and imports
nothing but the standard library. Orders come as lines of JSON on standard input, each is answered by one line
on standard output; the end of the input ends the program.

Only bytes on their way to the client are paced: it stands before a source, and requests are small.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

from tests.fakes.link_requests import RequestCounter

if TYPE_CHECKING:
    from collections.abc import Callable

_BUFFER_BYTES: Final = 256 * 1024
_BURST_SECONDS: Final = 0.004
"""How far the line may run ahead of its rate, to make up for timers that fire late."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST."""
_WINDOW_BYTES: Final = 8 * 1024 * 1024
"""What one connection may have under way in one direction of a line with latency."""


class Line:
    """What all connections share: the shape of the line, its faults, and what went over it."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.rtt_seconds = 0.0
        self.bytes_per_second: int | None = None
        self.is_reset = True
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.counters = {"bytes_to_client": 0, "bytes_from_client": 0, "connections": 0}
        self.requests: list[str] = []
        self.cuts: list[int] = []
        self.open: set[asyncio.Task[None]] = set()
        self._free_at = 0.0

    def shape(self, rtt_seconds: float, bytes_per_second: int | None) -> None:
        self.rtt_seconds, self.bytes_per_second = rtt_seconds, bytes_per_second

    def reset(self) -> None:
        self.counters = dict.fromkeys(self.counters, 0)
        self.requests.clear()
        self.cuts.clear()

    def piece_bytes(self) -> int:
        """How much to read at once: small on a narrow line, so that its connections share it evenly."""
        rate = self.bytes_per_second
        return _BUFFER_BYTES if rate is None else min(max(rate // 500, 2048), 64 * 1024)

    async def pace(self, count: int) -> None:
        """Wait until the line has carried so many bytes."""
        if self.bytes_per_second is None:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - _BURST_SECONDS) + count / self.bytes_per_second
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)

    def until_cut(self, count: int) -> int:
        """How many of the next bytes to the client arrive before the next cut that was ordered."""
        return min(count, self.cuts[0] - self.counters["bytes_to_client"]) if self.cuts else count

    def cut_at(self, counts: list[int]) -> None:
        self.cuts = sorted([*self.cuts, *counts])

    def cut(self, *, is_reset: bool = True) -> None:
        """Let all connections die."""
        self.is_reset = is_reset
        for task in self.open:
            task.cancel()


class Connection:
    """One connection of a client, and ours to the target."""

    def __init__(self, line: Line, client: socket.socket) -> None:
        self._line = line
        self._client = client
        self._loop = asyncio.get_running_loop()
        # The kernel took the connection at once; on a real line the first byte leaves after a round trip.
        self._opened_at = self._loop.time() + line.rtt_seconds
        self._counter = RequestCounter(line.requests.append)

    async def serve(self) -> None:
        """Carry bytes both ways until both ends are done, or the line is cut."""
        line = self._line
        server = socket.socket()
        is_done = False
        try:
            for end in (self._client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(server, line.target)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._way(self._client, server, is_to_client=False))
                ways.create_task(self._way(server, self._client, is_to_client=True))
            is_done = True
        except* OSError:
            pass  # one end is gone; the other learns it below
        finally:
            if line.is_reset and not is_done:
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            server.close()
            self._client.close()

    async def _way(self, source: socket.socket, sink: socket.socket, *, is_to_client: bool) -> None:
        if self._line.rtt_seconds:
            await self._delayed(source, sink, is_to_client=is_to_client)
        else:
            view = memoryview(bytearray(_BUFFER_BYTES))
            while count := await self._receive(source, view, is_to_client=is_to_client):
                await self._deliver(sink, view[:count], is_to_client=is_to_client)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _receive(self, source: socket.socket, view: memoryview, *, is_to_client: bool) -> int:
        count = await self._loop.sock_recv_into(source, view[: self._line.piece_bytes()])
        if is_to_client:
            await self._line.pace(count)
        return count

    async def _delayed(self, source: socket.socket, sink: socket.socket, *, is_to_client: bool) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        room = asyncio.Semaphore(max(_WINDOW_BYTES // self._line.piece_bytes(), 2))

        async def arrive() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - self._loop.time())
                if not data:
                    return
                await self._deliver(sink, memoryview(data), is_to_client=is_to_client)
                room.release()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(arrive())
            view = memoryview(bytearray(_BUFFER_BYTES))
            count = -1
            while count:
                await room.acquire()
                count = await self._receive(source, view, is_to_client=is_to_client)
                left_at = max(self._loop.time(), self._opened_at)
                under_way.put_nowait((left_at + self._line.rtt_seconds / 2, bytes(view[:count])))

    async def _deliver(self, sink: socket.socket, data: memoryview, *, is_to_client: bool) -> None:
        line = self._line
        await line.flowing.wait()
        if not is_to_client:
            line.counters["bytes_from_client"] += len(data)
            self._counter.feed(bytes(data))
            await self._loop.sock_sendall(sink, data)
            return
        allowed = line.until_cut(len(data))
        line.counters["bytes_to_client"] += allowed
        await self._loop.sock_sendall(sink, data[:allowed])
        if allowed < len(data):
            line.cuts.pop(0)
            line.cut()
            await asyncio.Event().wait()  # the cut ends this task, too


class Proxy:
    """Listens, and takes orders."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._address = self._socket.getsockname()
        self._accepting: asyncio.Task[None] | None = None
        self.up()

    def address(self) -> str:
        return f"127.0.0.1:{self._address[1]}"

    def up(self) -> None:
        """Take connections, and let bytes flow."""
        self._line.flowing.set()
        if self._accepting is None:
            self._socket.listen(512)
            self._socket.setblocking(False)
            self._accepting = asyncio.create_task(self._accept(self._socket))

    async def cut(self, *, is_reset: bool) -> None:
        """End all connections, and return when they are closed."""
        self._line.cut(is_reset=is_reset)
        if self._line.open:
            await asyncio.wait(set(self._line.open))

    async def down(self) -> None:
        """Refuse connections, and end those that are there."""
        await self.cut(is_reset=True)
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            self._accepting = None
            # A bound socket that does not listen keeps the port, and the kernel refuses for it.
            self._socket.close()
            self._socket = socket.socket()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(self._address)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(listening)
            self._line.counters["connections"] += 1
            task = asyncio.create_task(Connection(self._line, client).serve())
            self._line.open.add(task)
            task.add_done_callback(self._line.open.discard)

    async def obey(self, order: dict[str, Any]) -> object:
        """Do what a line of the input says, and return the answer."""
        line = self._line
        orders: dict[str, Callable[..., object]] = {
            "cut": self.cut,
            "cut_at": line.cut_at,
            "shape": line.shape,
            "down": self.down,
            "up": self.up,
            "hang": line.flowing.clear,
            "reset": line.reset,
            "requests": lambda: line.requests,
            "counters": lambda: line.counters | {"requests": len(line.requests)},
        }
        answer = orders[order.pop("do")](**order)
        return await answer if inspect.isawaitable(answer) else answer


async def main(target: str) -> None:
    """Serve until the input ends."""
    host, _, port = target.rpartition(":")
    proxy = Proxy(Line((host, int(port))))
    _answer(proxy.address())
    orders = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := await orders.readline():
        _answer(await proxy.obey(json.loads(order)))


def _answer(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
