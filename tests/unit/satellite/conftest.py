from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harbor_satellite.satellite.store import SatelliteStore
from tests.unit.satellite.site import HOST, Counting, Local, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Counting(tmp_path / "centre", HOST) as home, Local(tmp_path / "local", "local.test") as local:
        yield Site(tmp_path, home, local, SatelliteStore(tmp_path / "satellite"))
