"""A poll's answer without the runs that a newer one makes needless; those are closed at Prefect.

``watch-fleet`` closes them as well, site or no site. But when the centre itself was away, every site polls before it
has seen to the last of them.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.ground_control.fleet.waiting_runs import SUPERSEDED, WaitingRun, maker_of, superseded
from harbor_satellite.ground_control.gateway.documents import write
from harbor_satellite.ground_control.gateway.prefect_api import Answer, PrefectApi, PrefectAwayError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 50  # Prefect's own most


async def without_superseded(api: PrefectApi, answer: Answer, now: datetime) -> Answer:
    """Return a poll's answer without what is superseded; it is cancelled at Prefect, as far as that can be reached."""
    items = answer.value()
    if not isinstance(items, list):
        return answer
    runs = [run for item in items if (run := _waiting_run(item)) is not None]
    needless = superseded(runs, now)
    if not needless:
        return answer
    try:
        for start in range(0, len(needless), _AT_ONCE):
            await _cancel(api, needless[start : start + _AT_ONCE])
    except PrefectAwayError as error:  # the others are closed by the next poll, or by watch-fleet
        logger.info("superseded runs not closed reason=%s", error)
    left = [item for item in items if not (isinstance(item, dict) and _id_of(item) in needless)]
    logger.info("superseded runs closed count=%d deployment=%s", len(needless), runs[0].deployment)
    return Answer(answer.status, write(left))


async def _cancel(api: PrefectApi, ids: Sequence[str]) -> None:
    # Only what still waits: a run that was handed out meanwhile is nobody's to take back.
    runs = {"id": {"any_": list(ids)}, "state": {"type": {"any_": ["SCHEDULED"]}}}
    state = {"type": "CANCELLED", "message": SUPERSEDED}
    await api.call("POST", "/flow_runs/bulk_set_state", {"flow_runs": runs, "state": state, "limit": _AT_ONCE})


def _waiting_run(item: Any) -> WaitingRun | None:
    run = item.get("flow_run") if isinstance(item, dict) else None
    if not isinstance(run, dict):
        return None
    try:
        due = datetime.fromisoformat(run["next_scheduled_start_time"])
        maker = maker_of(
            is_auto_scheduled=run.get("auto_scheduled") is True, created_by=(run.get("created_by") or {}).get("type")
        )
        return WaitingRun(str(run["id"]), str(run["deployment_id"]), maker, due) if due.tzinfo else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _id_of(item: dict[str, Any]) -> str:
    run = item.get("flow_run")
    return str(run.get("id")) if isinstance(run, dict) else ""
