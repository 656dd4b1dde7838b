"""Counts of bytes as options take them: as settings do."""

from __future__ import annotations

from harbor_satellite.inputs import parse_size

__all__ = ["parse_size"]
