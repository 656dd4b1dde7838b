"""Handlers for satellite configs. They parse, call a use case and serialise."""

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/configs", tags=["configs"])
