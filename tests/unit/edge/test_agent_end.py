"""What an agent does with log lines that wait elsewhere when it ends."""

from __future__ import annotations

import logging
import logging.handlers

from harbor_satellite.edge.agent import flush_log


def test_flush_log_gives_away_what_handlers_of_any_logger_hold() -> None:
    target = logging.handlers.BufferingHandler(10)
    holding = logging.handlers.MemoryHandler(10, flushLevel=logging.CRITICAL, target=target)
    logger = logging.getLogger("harbor_satellite.test_agent_end")
    logger.addHandler(holding)
    try:
        logger.warning("the last line of a run")
        before = list(target.buffer)

        flush_log()

        assert before == []
        assert [record.getMessage() for record in target.buffer] == ["the last line of a run"]
    finally:
        logger.removeHandler(holding)
        holding.setTarget(None)
        holding.close()
