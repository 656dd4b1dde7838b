"""Handlers for rollouts. They parse, call a use case and serialise."""

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/rollouts", tags=["rollouts"])
