"""Handlers for the endpoint of Harbor's replication rules: a registry that takes manifests only."""

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(tags=["harbor"])
