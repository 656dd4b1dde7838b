"""Telemetry off, and the tools' table."""

from __future__ import annotations

import pytest

from ci.engine import silence
from ci.errors import UsageError
from ci.tools import TOOLS, ZOT, parse_tools, tool


def test_silence_takes_away_whom_to_tell_and_says_so() -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x",
        "DAGGER_CLOUD_TOKEN": "t",
        "TRACEPARENT": "p",
        "HOME": "/",
    }

    silence(environment)

    assert environment == {"HOME": "/", "DO_NOT_TRACK": "1", "DAGGER_NO_NAG": "1", "DAGGER_NO_UPDATE_CHECK": "1"}


def test_tool_chosen_by_the_user_is_taken_and_others_are_the_tables() -> None:
    chosen = parse_tools(["zot=registry.example/zot:1", "zot=registry.example/zot:2"])

    assert tool(ZOT, chosen) == "registry.example/zot:2"
    assert tool("cosign", chosen) == TOOLS["cosign"]


@pytest.mark.parametrize("pair", ["zot", "zot=", "nothing=x"], ids=["no reference", "empty reference", "unknown name"])
def test_parse_tools_of_what_is_none_is_refused(pair: str) -> None:
    with pytest.raises(UsageError, match="it has to be NAME=REFERENCE"):
        parse_tools([pair])
