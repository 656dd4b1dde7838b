"""Handlers for webhooks of Harbor. They parse, call a use case and serialise."""

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(tags=["harbor"])
