"""Ground Control as ``ground-control serve`` serves it, beside a Prefect that only counts: ``… DATABASE_URL PORT``."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import Final

import uvicorn

from harbor_satellite.ground_control.api.app import AppOptions, create_app
from harbor_satellite.ground_control.database import make_engine, make_session_factory
from harbor_satellite.ground_control.satellites.sources import OciSource

_HEAD_END: Final = b"\r\n\r\n"


class CountingPrefect:
    """Answers everything with an empty list, and ``/count`` with how many calls there were."""

    def __init__(self) -> None:
        self.calls = 0
        self.port = 0
        self._started = threading.Event()

    def start(self) -> None:
        """Serve on a free port, in a thread."""
        threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True).start()
        self._started.wait(10)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(_HEAD_END):
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if lengths:
                    await reader.readexactly(int(lengths[0].partition(b":")[2]))
                is_asked = b" /count " in head.partition(b"\r\n")[0]
                self.calls += not is_asked
                body = json.dumps(self.calls if is_asked else []).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                    % (len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def main() -> None:
    """Serve until killed; the port of the Prefect is printed first."""
    database_url, port = sys.argv[1:3]
    prefect = CountingPrefect()
    prefect.start()
    print(prefect.port, flush=True)
    options = AppOptions(
        source_url="http://source.test:5000",
        public_url=f"http://127.0.0.1:{port}",
        prefect_api_internal_url=f"http://127.0.0.1:{prefect.port}/api",
    )
    app = create_app(options, make_session_factory(make_engine(database_url)), OciSource())
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        ws="websockets-sansio",
    )


if __name__ == "__main__":
    main()
