"""A throw-away PostgreSQL from whatever binaries are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from harbor_satellite.ground_control.database import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class PostgresServer:
    """A server that ends with the test session, reached through a unix socket."""

    socket_dir: Path
    username: str

    def url(self, database: str) -> str:
        return f"postgresql://{self.username}@/{database}?host={self.socket_dir}"

    def execute(self, statement: str) -> None:
        engine = make_engine(self.url("postgres")).execution_options(isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


def _postgres_binaries() -> Path | None:
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((each for each in candidates if (each / "postgres").exists() and (each / "initdb").exists()), None)


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        if subprocess.run(["id", name], capture_output=True, check=False).returncode == 0:
            return {"user": name, "group": None, "extra_groups": []}
    pytest.skip("PostgreSQL: running as root, and there is no user postgres or nobody")


@contextmanager
def running_postgres(*, is_durable: bool = False) -> Iterator[PostgresServer]:
    """Start a PostgreSQL for as long as the block lasts; skips the test, saying why, where there is none.

    Args:
        is_durable: whether a commit waits for the disk, as in production; tests need not wait.
    """
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL: no initdb on PATH or below /usr/lib/postgresql")
    drop = _unprivileged()
    drop.pop("group", None)
    with tempfile.TemporaryDirectory(prefix="hs-pg-", dir="/tmp") as name:  # a socket's path is short
        root = Path(name)
        if drop:
            shutil.chown(root, drop["user"])
        data = root / "data"
        quiet: dict[str, Any] = {"cwd": root, "capture_output": True, **drop}
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "hs", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
            check=True,
            **quiet,
        )
        settings = [] if is_durable else ["fsync=off", "full_page_writes=off", "synchronous_commit=off"]
        settings += ["listen_addresses=", "jit=off"]
        settings += [f"unix_socket_directories={root}", "shared_buffers=32MB", "max_connections=120"]
        options = [part for setting in settings for part in ("-c", setting)]
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", data, *options], cwd=root, stdout=log, stderr=log, **drop
            )
        try:
            wait_for(lambda: (root / ".s.PGSQL.5432").exists() and _accepts(binaries, root), "PostgreSQL")
            yield PostgresServer(root, "hs")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _accepts(binaries: Path, root: Path) -> bool:
    command = [str(binaries / "psql"), "-h", str(root), "-U", "hs", "-c", "SELECT 1", "postgres"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start within {seconds} s")
        time.sleep(0.02)
