"""Handlers for the state of the fleet. They parse, call a use case and serialise."""

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/fleet", tags=["fleet"])
