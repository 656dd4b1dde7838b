"""What the pipeline says when it cannot go on; it says what, which and where, and the process ends with `exit_code`."""

from __future__ import annotations


class PipelineError(Exception):
    """A step failed: something was not built, not published or not proven."""

    exit_code = 1


class UsageError(PipelineError):
    """The command line, a variable or a file of the user's is wrong, or no engine can be had."""

    exit_code = 2
