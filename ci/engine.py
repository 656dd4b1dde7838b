"""The way to a Dagger engine: telemetry off, and a message that helps where there is none."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, TextIO

import dagger

from ci.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

RUNNER_HOST: Final = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
CLI_BIN: Final = "_EXPERIMENTAL_DAGGER_CLI_BIN"

_TALKATIVE: Final = ("OTEL_", "DAGGER_CLOUD_", "TRACEPARENT", "TRACESTATE")
_QUIET: Final = {"DO_NOT_TRACK": "1", "DAGGER_NO_NAG": "1", "DAGGER_NO_UPDATE_CHECK": "1"}

_NO_ENGINE: Final = f"""\
no Dagger engine: {{reason}}
  - with Docker (or Podman as `docker`) running, the SDK brings its engine itself; the first time it downloads it;
  - an engine that is already there is named by {RUNNER_HOST}=unix:///run/dagger/engine.sock (or
    tcp://HOST:PORT), and the `dagger` program of its version by {CLI_BIN}=/usr/local/bin/dagger."""


def silence(environment: MutableMapping[str, str]) -> None:
    """Change a process' environment so that neither SDK, CLI nor engine tells anybody anything."""
    for name in [name for name in environment if name.startswith(_TALKATIVE)]:
        del environment[name]
    environment.update(_QUIET)


@asynccontextmanager
async def engine(log: TextIO, environment: MutableMapping[str, str]) -> AsyncIterator[None]:
    """Connect `dagger.dag` to an engine until the block ends.

    Args:
        log: where the engine writes its progress; secrets are scrubbed from it by the engine.
        environment: the process', which the SDK hands to its CLI; see `silence`.

    Raises:
        UsageError: there is no engine.
    """
    silence(environment)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(dagger.connection(dagger.Config(log_output=log)))
        except (dagger.ProvisionError, dagger.ClientConnectionError, FileNotFoundError) as error:
            raise UsageError(_NO_ENGINE.format(reason=str(error).strip() or type(error).__name__)) from error
        yield
