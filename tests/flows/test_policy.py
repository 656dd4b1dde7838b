"""What tasks retry, and which flows a site loads; no Prefect server."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, cast

import pytest
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Completed, Failed

import tasks.fleet
import tasks.ground_control
import tasks.images
from harbor_satellite.edge.worker import EdgeWorker, own_flow
from harbor_satellite.errors import (
    AuthenticationError,
    ConflictError,
    DigestMismatchError,
    InvalidInputError,
    RemoteError,
    StorageError,
    UntrustedDataError,
)
from harbor_satellite.project import project_dir
from harbor_satellite.state.names import WORKER_TYPE
from tasks.policy import RETRIES, is_retryable

if TYPE_CHECKING:
    from prefect.client.schemas.objects import TaskRun

FLOWS = sorted(path.stem for path in (project_dir() / "flows").glob("*_*.py") if not path.stem.startswith("_"))
TASKS = [
    value
    for module in (tasks.fleet, tasks.images, tasks.ground_control)
    for value in vars(module).values()
    if isinstance(value, Task)
]


@pytest.mark.parametrize("flow", FLOWS)
def test_flow_loads_from_its_entrypoint(flow: str) -> None:
    loaded: Flow[..., object] = load_flow_from_entrypoint(
        f"{project_dir()}/flows/{flow}.py:{flow}", use_placeholder_flow=False
    )

    assert loaded.name == flow.replace("_", "-")
    assert isinstance(loaded, Flow)


@pytest.mark.parametrize("flow", FLOWS)
def test_flow_file_holds_no_class(flow: str) -> None:
    tree = ast.parse((project_dir() / "flows" / f"{flow}.py").read_text())

    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("flow", FLOWS)
def test_flow_takes_no_secret_as_parameter(flow: str) -> None:
    loaded: Flow[..., object] = load_flow_from_entrypoint(
        f"{project_dir()}/flows/{flow}.py:{flow}", use_placeholder_flow=False
    )

    assert set(loaded.parameters.properties) <= {"satellite", "group", "rollout_id"}


@pytest.mark.parametrize("flow", ["replicate_state", "report_status", "register_satellite"])
def test_own_flow_of_the_installation_is_loaded(flow: str) -> None:
    assert own_flow(f"flows/{flow}.py:{flow}").name == flow.replace("_", "-")


@pytest.mark.parametrize(
    "entrypoint",
    [
        "",
        "flows/replicate_state.py",
        "flows/no_such_flow.py:x",
        "/etc/passwd:x",
        "flows/../setup.py:x",
        "../flows/replicate_state.py:replicate_state",
        "flows/replicate_state.py:replicate_state\n",
        "flows.replicate_state:replicate_state",
        "https://evil.example/x.py:x",
        "tasks/site.py:open_site",
    ],
)
def test_own_flow_anything_else_is_refused(entrypoint: str) -> None:
    with pytest.raises(UntrustedDataError, match="not a flow of this installation"):
        own_flow(entrypoint)


def test_edge_worker_is_of_the_type_that_pools_are_made_for() -> None:
    assert EdgeWorker.type == WORKER_TYPE


@pytest.mark.parametrize(
    ("error", "is_retried"),
    [
        (RemoteError("x", status=503, retryable=True), True),
        (RemoteError("x", status=404), False),
        (TimeoutError(), True),
        (InvalidInputError("x"), False),
        (DigestMismatchError("x"), False),
        (AuthenticationError("x"), False),
        (ConflictError("x"), False),
        (StorageError("x"), False),
        (ValueError("a bug"), False),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "status", "")),
)
def test_is_retryable_asks_the_error(error: Exception, is_retried: bool) -> None:  # noqa: FBT001 - a column of the table
    task, run = cast("Task[..., object]", None), cast("TaskRun", None)

    assert is_retryable(task, run, Failed(data=error)) is is_retried


def test_is_retryable_completed_is_not() -> None:
    task, run = cast("Task[..., object]", None), cast("TaskRun", None)

    assert not is_retryable(task, run, Completed(data=1))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_task_caches_nothing_and_keeps_no_result(task: Task[..., object]) -> None:
    assert task.cache_policy == NO_CACHE
    assert not task.persist_result


@pytest.mark.parametrize("task", [task for task in TASKS if task.retries], ids=lambda task: task.name)
def test_task_that_retries_lets_the_error_decide(task: Task[..., object]) -> None:
    assert task.retries == RETRIES
    assert task.retry_condition_fn is is_retryable
    assert task.timeout_seconds
