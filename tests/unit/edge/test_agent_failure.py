"""An agent whose work fails lets go of everything before it says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.agent import Agent
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.settings import SatelliteSettings

if TYPE_CHECKING:
    from pathlib import Path


class FailingAgent(Agent):
    """Cannot work, and notes whether it let go."""

    has_let_go = False

    async def _work(self) -> int:
        raise InvalidInputError("the settings ask for what cannot be")

    async def _let_go(self) -> None:
        self.has_let_go = True
        await super()._let_go()


def test_agent_whose_work_fails_lets_go_of_what_waits_for_the_centre(tmp_path: Path) -> None:
    agent = FailingAgent(SatelliteSettings(data_dir=tmp_path, status_listen=""))

    with pytest.raises(InvalidInputError):
        asyncio.run(agent.live())

    assert agent.has_let_go
