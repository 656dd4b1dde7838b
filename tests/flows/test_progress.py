from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect import flow
from prefect.client.orchestration import get_client

from tasks import progress

if TYPE_CHECKING:
    import pytest


def test_show_progress_long_copy_has_a_progress_artifact(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.05)

    @flow(name="copy-for-a-while")
    def copy() -> None:
        with progress.show_progress("acme/long:v1", total_bytes=100) as count:
            count(40)
            time.sleep(1.0)

    copy()

    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts()
    (shown,) = [artifact for artifact in artifacts if artifact.description == "copying acme/long:v1"]
    assert (shown.type, shown.data) == ("progress", 40.0)


def test_show_progress_short_copy_has_none(prefect_server: None) -> None:
    with progress.show_progress("acme/short:v1", total_bytes=100) as count:
        count(100)

    with get_client(sync_client=True) as client:
        descriptions = [artifact.description for artifact in client.read_artifacts()]
    assert "copying acme/short:v1" not in descriptions
