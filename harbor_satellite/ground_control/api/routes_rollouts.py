"""Handlers for rollouts, quotes and held pins. They parse, call a use case and serialise."""

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.orm import Session

from harbor_satellite.ground_control.api.callers import Admin, Editor, Person, SharedContext
from harbor_satellite.ground_control.api.context import Context
from harbor_satellite.ground_control.api.schemas_rollouts import (
    PinBody,
    PinRequest,
    QuoteBody,
    ReasonBody,
    RolloutBody,
    RolloutRequest,
    RolloutSatelliteBody,
)
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.rollouts import pins, quotes, rollout_view, rollouts
from harbor_satellite.ground_control.rollouts.rollout_plan import WAVES_LIMIT
from harbor_satellite.ground_control.satellites.satellites import show_satellite

router: Final = APIRouter(tags=["rollouts"])

_Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
_Limit = Annotated[int, Query(ge=0, le=1000, description="At most so many")]
_Offset = Annotated[int, Query(ge=0, le=10_000_000, description="Leave out so many")]
_Filter = Annotated[str, Query(max_length=128)]
_Wave = Annotated[int | None, Query(ge=0, le=WAVES_LIMIT)]


@router.post("/api/rollouts/quote", summary="Tell what a rollout would cost the sites")
def quote_rollout(
    context: SharedContext, person: Person, body: RolloutRequest, limit: _Limit = 100, offset: _Offset = 0
) -> QuoteBody:
    """Add up bytes, time and broken limits over all satellites, and show a page of them; nothing is changed."""
    del person
    with context.reading() as session:
        return QuoteBody.of(quotes.quote_rollout(session, body.plan(), limit=limit, offset=offset))


@router.post("/api/rollouts", summary="Plan a rollout", status_code=201)
def plan_rollout(context: SharedContext, editor: Admin, body: RolloutRequest) -> RolloutBody:
    """Give every satellite of the group its wave; nothing moves until it is started."""
    with context.writing() as session:
        row = rollouts.plan_rollout(session, body.plan(), editor.principal.username, context.clock())
        changes = {"group": [None, body.group], "generation": [None, row.generation]}
        editor.record(session, "rollout.create", f"rollout:{row.id}", changes)
        return RolloutBody.of(rollout_view.show_rollout(session, row.id))


@router.get("/api/rollouts", summary="List rollouts")
def list_rollouts(  # noqa: PLR0917 - FastAPI passes them by name
    context: SharedContext,
    person: Person,
    response: Response,
    group: _Filter = "",
    state: _Filter = "",
    limit: _Limit = 100,
    offset: _Offset = 0,
) -> list[RolloutBody]:
    """List rollouts, the newest first; ``X-Total-Count`` says how many match."""
    del person
    with context.reading() as session:
        page, total = rollout_view.list_rollouts(session, group=group, state=state, limit=limit, offset=offset)
        response.headers["X-Total-Count"] = str(total)
        return [RolloutBody.of(view) for view in page]


@router.get("/api/rollouts/{rollout}", summary="Show a rollout and how far it has come")
def show_rollout(context: SharedContext, person: Person, rollout: _Id) -> RolloutBody:
    """Show one rollout with the counts of its waves."""
    del person
    with context.reading() as session:
        return RolloutBody.of(rollout_view.show_rollout(session, rollout))


@router.get("/api/rollouts/{rollout}/satellites", summary="List the satellites of a rollout")
def list_satellites(  # noqa: PLR0917 - FastAPI passes them by name
    context: SharedContext,
    person: Person,
    response: Response,
    rollout: _Id,
    state: _Filter = "",
    wave: _Wave = None,
    limit: _Limit = 100,
    offset: _Offset = 0,
) -> list[RolloutSatelliteBody]:
    """List the satellites of a rollout by wave and name; ``X-Total-Count`` says how many match."""
    del person
    with context.reading() as session:
        page, total = rollout_view.list_satellites(session, rollout, state=state, wave=wave, limit=limit, offset=offset)
        response.headers["X-Total-Count"] = str(total)
        return [RolloutSatelliteBody.of(row, name) for row, name in page]


@router.post("/api/rollouts/{rollout}/start", summary="Start a planned rollout")
def start_rollout(context: SharedContext, editor: Admin, rollout: _Id) -> RolloutBody:
    """Let the first wave go; 409 while another rollout of the group is going on."""
    return _change(
        context, editor, rollout, "start", lambda session: rollouts.start_rollout(session, rollout, context.clock())
    )


@router.post("/api/rollouts/{rollout}/pause", summary="Pause a rollout")
def pause_rollout(context: SharedContext, editor: Admin, rollout: _Id, body: ReasonBody | None = None) -> RolloutBody:
    """Let no further wave go."""
    reason = body.reason if body else ""
    return _change(
        context,
        editor,
        rollout,
        "pause",
        lambda session: rollouts.pause_rollout(session, rollout, reason, context.clock()),
    )


@router.post("/api/rollouts/{rollout}/resume", summary="Go on with a paused rollout")
def resume_rollout(context: SharedContext, editor: Admin, rollout: _Id) -> RolloutBody:
    """Go on where it was paused."""
    return _change(
        context, editor, rollout, "resume", lambda session: rollouts.resume_rollout(session, rollout, context.clock())
    )


@router.post("/api/rollouts/{rollout}/abort", summary="End a rollout where it is")
def abort_rollout(context: SharedContext, editor: Admin, rollout: _Id, body: ReasonBody | None = None) -> RolloutBody:
    """Leave everybody where they are now."""
    reason = body.reason if body else ""
    return _change(
        context,
        editor,
        rollout,
        "abort",
        lambda session: rollouts.abort_rollout(session, rollout, reason, context.clock()),
    )


@router.post("/api/rollouts/{rollout}/rollback", summary="Send back whom a rollout has moved")
def roll_back(context: SharedContext, editor: Admin, rollout: _Id, body: ReasonBody | None = None) -> RolloutBody:
    """Take every satellite that was moved back to what it followed before; a completed one needs a new rollout."""
    reason = body.reason if body else ""
    return _change(
        context,
        editor,
        rollout,
        "rollback",
        lambda session: rollouts.roll_back(session, rollout, reason, context.clock()),
    )


@router.put("/api/satellites/{satellite}/pins/{group}", summary="Hold a satellite on a generation")
def hold_pin(context: SharedContext, editor: Admin, satellite: str, group: str, body: PinRequest) -> PinBody:
    """Pin a satellite to a generation that is still kept; no rollout moves it until the pin is deleted."""
    with context.writing() as session:
        before = pins.hold_pin(session, satellite, group, body.generation, context.clock())
        return _pin_changed(session, editor, "pin.hold", satellite, group, before)


@router.delete("/api/satellites/{satellite}/pins/{group}", summary="Let a held satellite go")
def let_go(context: SharedContext, editor: Admin, satellite: str, group: str) -> PinBody:
    """Let a satellite follow its group again."""
    with context.writing() as session:
        before = pins.let_go(session, satellite, group, context.clock())
        return _pin_changed(session, editor, "pin.release", satellite, group, before)


def _change(
    context: Context, editor: Editor, rollout: int, verb: str, change: Callable[[Session], object]
) -> RolloutBody:
    with context.writing() as session:
        before = rollout_view.show_rollout(session, rollout).rollout.state
        change(session)
        view = rollout_view.show_rollout(session, rollout)
        changes = {"group": [view.group, view.group], "state": [before, view.rollout.state]}
        editor.record(session, f"rollout.{verb}", f"rollout:{rollout}", changes)
        return RolloutBody.of(view)


def _pin_changed(  # noqa: PLR0917 - read from left to right it is the event
    session: Session, editor: Editor, action: str, satellite: str, group: str, before: pins.Followed
) -> PinBody:
    row = show_satellite(session, satellite)
    after = pins.followed(session, groups.show_group(session, group).id, [row.id])[row.id]
    changes = {
        "group": [group, group],
        "generation": [before.generation, after.generation],
        "is_held": [before.is_held, after.is_held],
    }
    editor.record(session, action, f"satellite:{satellite}", changes)
    is_rollback = after.is_rollback and after.generation < after.newest
    return PinBody(
        satellite=satellite,
        group=group,
        generation=after.generation,
        is_held=after.is_held,
        is_rollback=is_rollback,
    )
