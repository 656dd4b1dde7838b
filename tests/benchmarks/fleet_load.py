"""A fleet of sites as a load generator, in a process of its own: an order on stdin, figures on stdout, both JSON.

Every call has its own moment, whether those before it were answered or not, and its own connection, as those of
sites have that call once a minute. A latency counts from that moment: waiting is not left out.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks.fleet_seed import report_body, satellite_name, secret_of

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT_SECONDS: Final = 30.0


@dataclass
class Tally:
    """What became of the calls of one kind."""

    seconds: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def note(self, seconds: float, error: str) -> None:
        """Count one call."""
        self.seconds.append(seconds)
        if error:
            self.errors[error] = self.errors.get(error, 0) + 1

    def figures(self) -> dict[str, Any]:
        """Return counts, percentiles in seconds, and errors."""
        ordered = sorted(self.seconds) or [0.0]
        return {
            "count": len(self.seconds),
            "errors": self.errors,
            **{f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 99)},
            "max": ordered[-1],
        }


class Fleet:
    """All sites of the order."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.host, self.port = "127.0.0.1", int(order["port"])
        self.count, self.interval, self.seconds = int(order["count"]), float(order["interval"]), float(order["seconds"])
        self.kinds = frozenset(order["kinds"])
        self.is_news = bool(order["is_news"])
        self.reports, self.polls = Tally(), Tally()

    async def run(self) -> None:
        """Let every site call in its own time until the end; its polls come half an interval beside its reports."""
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                share = number / self.count
                user = f"robot$satellite-{satellite_name(number)}:{secret_of(number)}"
                basic = "Basic " + base64.b64encode(user.encode()).decode()
                if "report" in self.kinds:
                    report = partial(_report_request, number, basic, is_news=self.is_news)
                    group.create_task(self._calls(started, share, self.reports, report))
                if "poll" in self.kinds:
                    poll = partial(_poll_request, number, basic)
                    group.create_task(self._calls(started, (share + 0.5) % 1, self.polls, poll))

    async def _calls(self, started: float, share: float, tally: Tally, request: Callable[[], bytes]) -> None:
        due = started + self.interval * share
        while due - started < self.seconds:
            await self._at(due, tally, request)
            due += self.interval

    async def _at(self, due: float, tally: Tally, request: Callable[[], bytes]) -> None:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        error = ""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                status = await self._call(request())
            error = "" if status in {200, 201} else str(status)
        except (OSError, TimeoutError, ValueError) as problem:
            error = type(problem).__name__
        tally.note(time.perf_counter() - due, error)

    async def _call(self, request: bytes) -> int:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(request)
            answer = await reader.read()
            return int(answer.split(b" ", 2)[1])
        finally:
            writer.close()


def _report_request(number: int, basic: str, *, is_news: bool) -> bytes:
    body = {**report_body(number), "request_created_time": datetime.now(UTC).isoformat()}
    if is_news:
        body["deleted_count"] = int(time.time() * 1000)
    return _request("/satellites/sync", {"Authorization": basic}, body)


def _poll_request(number: int, basic: str) -> bytes:
    path = f"/prefect/api/work_pools/satellite-{satellite_name(number)}/get_scheduled_flow_runs"
    return _request(path, {"Authorization": basic}, {"scheduled_before": datetime.now(UTC).isoformat()})


def _request(path: str, headers: dict[str, str], body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: ground-control", "Connection: close", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


def main() -> None:
    """Carry out the order."""
    fleet = Fleet(json.loads(sys.stdin.read()))
    asyncio.run(fleet.run())
    print(json.dumps({"reports": fleet.reports.figures(), "polls": fleet.polls.figures()}))


if __name__ == "__main__":
    main()
