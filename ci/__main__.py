"""`python -m ci VERB`: builds, tests, publishes, signs Harbor Satellite. See `--help` and docs/guides/pipeline.md."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import anyio
import dagger

from ci import verbs
from ci.engine import engine
from ci.errors import PipelineError
from ci.options import parse
from ci.release import release_verb
from ci.run import prepare
from ci.toolbox import failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ci.run import Run

_VERBS: Final[dict[str, Callable[[Run], Awaitable[None]]]] = {
    "test": verbs.test_verb,
    "check": verbs.check_verb,
    "lock": verbs.lock_verb,
    "build": verbs.build_verb,
    "publish": verbs.publish_verb,
    "sign": verbs.sign_verb,
    "verify": verbs.verify_verb,
    "sbom": verbs.sbom_verb,
    "release": release_verb,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks and return the exit code: 0, 1 where a step failed, 2 where it cannot begin."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        run = prepare(options, dict(os.environ))
        with ExitStack() as stack:
            log = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8")) if options.quiet else sys.stderr
            anyio.run(_connected, run, log)
    except PipelineError as error:
        return _ended(str(error), error.exit_code)
    except dagger.ExecError as error:
        return _ended(str(failed(" ".join(error.command), error)), PipelineError.exit_code)
    except dagger.DaggerError as error:
        return _ended(f"the engine: {error}", PipelineError.exit_code)
    except KeyboardInterrupt:
        return _ended("interrupted", 130)
    return 0


async def _connected(run: Run, log: TextIO) -> None:
    async with engine(log, os.environ):
        await _VERBS[run.options.verb](run)


def _ended(message: str, code: int) -> int:
    sys.stderr.write(f"ci: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
