"""What an event may say of a task run. Pure.

Prefect writes the task runs of all sites down together: one that its database refuses would take those of others
with it. So whatever could be refused is refused here, value by value.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, ValidationError

from harbor_satellite.ground_control.gateway.documents import RefusedError

_COUNT_MAX: Final = 2**31 - 1
_SECONDS_MAX: Final = 10.0 * 366 * 24 * 3600
_Name = Annotated[str, Field(max_length=400)]
"""Names are in indexes, and those have an end."""
_Count = Annotated[int, Field(ge=0, le=_COUNT_MAX)]
_Seconds = Annotated[float, Field(ge=0, le=_SECONDS_MAX)]
_Many: Final = Field(max_length=200)


class _Said(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _FromRun(_Said):
    input_type: Literal["task_run", "flow_run"]
    id: UUID


class _FromParameter(_Said):
    input_type: Literal["parameter"]
    name: _Name


class _FromConstant(_Said):
    input_type: Literal["constant"]
    type: _Name


class _Policy(_Said):
    retries: _Count | None = None
    retry_delay: _Seconds | Annotated[list[_Seconds], _Many] | None = None
    retry_jitter_factor: _Seconds | None = None


class _TaskRun(_Said):
    name: _Name = ""
    task_key: _Name
    dynamic_key: _Name
    task_version: _Name | None = None
    empirical_policy: _Policy = _Policy()
    tags: Annotated[list[_Name], _Many] = Field(default_factory=list)
    labels: Annotated[dict[_Name, StrictBool | StrictInt | StrictFloat | str], _Many] | None = None
    task_inputs: Annotated[dict[_Name, list[_FromRun | _FromParameter | _FromConstant]], _Many] = Field(
        default_factory=dict
    )
    run_count: _Count = 0
    flow_run_run_count: _Count = 0
    expected_start_time: AwareDatetime | None = None
    next_scheduled_start_time: AwareDatetime | None = None
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None
    total_run_time: _Seconds = 0.0


class _Details(_Said):
    scheduled_time: AwareDatetime | None = None
    pause_timeout: AwareDatetime | None = None
    pause_reschedule: bool = False
    pause_key: _Name | None = None
    refresh_cache: bool | None = None
    retriable: bool | None = None
    transition_id: UUID | None = None
    task_parameters_id: UUID | None = None
    untrackable_result: bool = False
    traceparent: _Name | None = None


class _State(_Said):
    type: Literal[
        "SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED", "CANCELLING"
    ]
    name: _Name | None = None
    message: str | None = None
    data: Any = None
    state_details: _Details = _Details()


def task_run_of(value: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of a task run, but not which it is and whose; raises ``RefusedError``."""
    return _read(_TaskRun, value, "the task run")


def task_state_of(value: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a task run, without what only Prefect may say in it; raises ``RefusedError``."""
    return _read(_State, value, "the state")


def _read(model: type[BaseModel], value: dict[str, Any], what: str) -> dict[str, Any]:
    try:
        return model.model_validate(value).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RefusedError(f"{what} is none: {place[:80]!r}") from None
