"""Pushing states through oras-py to real registries that want a password."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.state_pull import pull_state
from harbor_satellite.registry.state_store import StatePusher
from tests.fixtures_registry import run_cncf, run_embedded, run_zot

if TYPE_CHECKING:
    from pathlib import Path

RUN = {"cncf": run_cncf, "zot": run_zot, "embedded": run_embedded}
STATE = "satellite/group-state/shops/state"
RAW = b'{"group":"shops","registry":"","artifacts":[]}'


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("cncf", marks=pytest.mark.go_tool),
        pytest.param("zot", marks=pytest.mark.zot),
        "embedded",
    ],
)
def test_push_state_with_password_then_pull(kind: str, tmp_path: Path) -> None:
    with RUN[kind](tmp_path / kind, has_password=True) as running:
        who = Credentials(running.username, SecretStr(running.password))

        digest = StatePusher(running.host, plain_http=True, credentials=who).push(STATE, ("1", "latest"), RAW)

        with HttpRegistry(running.url, credentials=who) as registry:
            assert pull_state(registry, STATE, "latest").raw == RAW
            assert pull_state(registry, STATE, str(digest)).digest == digest
