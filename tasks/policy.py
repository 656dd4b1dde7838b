"""The one policy of tasks that talk to a peer: try again what may succeed, forget nothing, cache nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from harbor_satellite.errors import HarborSatelliteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import State, TaskRun

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 4
_BACKOFF_SECONDS = 2  # 2, 4, 8, 16 s, each made longer by up to as much again
_JITTER = 1.0


def remote_task(
    *, name: str, run_name: str | None = None, timeout_seconds: float, retries: int = RETRIES
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a task of a library call that talks to a peer; such a call must be safe to repeat.

    Args:
        name: verb and noun, as it shows in the UI.
        run_name: template over the call's parameters that names the artifact at hand.
        timeout_seconds: for one try.
        retries: further tries, with jittered backoff, as long as the error says that it is retryable.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return Task(
            function,
            name=name,
            task_run_name=run_name,
            timeout_seconds=timeout_seconds,
            retries=retries,
            retry_delay_seconds=exponential_backoff(_BACKOFF_SECONDS),
            retry_jitter_factor=_JITTER,
            retry_condition_fn=is_retryable,
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    return decorate


def local_task(*, name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a task of a call that stays on this machine: tried once, never cached."""

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return Task(function, name=name, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)

    return decorate


def is_retryable(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Let the error itself say whether trying again makes sense; a bug never does, a time-out does."""
    try:
        state.result()
    except HarborSatelliteError as error:
        return error.retryable
    except TimeoutError:
        return True
    except Exception:  # noqa: BLE001  (whatever the task raised: this only asks what it was)
        return False
    return False
