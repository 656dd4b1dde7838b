"""Handlers for selectors and replication rules, by which a group's members come."""

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/groups", tags=["groups"])
