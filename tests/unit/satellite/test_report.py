from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import pytest

from harbor_satellite.errors import RemoteError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.applied import Applied, LastRun
from harbor_satellite.satellite.link_rate import ENOUGH_BYTES, LINK_FILE, link_rate
from harbor_satellite.satellite.outcome import ImageOutcome, RunOutcome, failed_outcome
from harbor_satellite.satellite.report import SiteFacts, compose_report
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.desired import LocalTag
from tests.unit.satellite.test_store import FULL, NOW

if TYPE_CHECKING:
    from pathlib import Path


def test_compose_report_of_converged_site() -> None:
    report = compose_report("shop", FULL, SiteFacts(storage_used_bytes=1000), NOW)

    assert (report.name, report.latest_state_digest) == ("shop", str(FULL.state_digest))
    assert report.image_count == len(report.cached_images) == 2
    assert report.last_sync_duration_ms == 1500
    assert report.bytes_from_source == 4711


def test_compose_report_of_site_not_wholly_there_names_no_digest() -> None:
    report = compose_report("shop", replace(FULL, is_converged=False), SiteFacts(), NOW)

    assert report.latest_state_digest == ""
    assert report.failures[0].reference == "acme/bad:v1"


def test_compose_report_before_first_run() -> None:
    report = compose_report("shop", Applied(), SiteFacts(), NOW)

    assert (report.activity, report.latest_state_digest, report.image_count) == ("no run yet", "", 0)


def test_compose_report_of_large_site_is_cut_to_what_the_wire_takes() -> None:
    digest = Digest.of(b"x")
    owned = {LocalTag("acme/app", str(number)): frozenset({digest}) for number in range(10_001)}

    report = compose_report("shop", Applied(owned=owned), SiteFacts(), datetime.now(UTC))

    assert report.image_count == 10_001


ACTIONS: tuple[Literal["copied", "kept", "failed"], ...] = ("copied", "copied", "kept", "failed")


def test_failed_outcome_says_what_kind_of_error() -> None:
    outcome = failed_outcome("acme/app:v1", Digest.of(b"x"), RemoteError("no answer"))

    assert outcome.reason == "RemoteError: no answer"
    assert outcome.row()["action"] == "failed"


def test_run_outcome_summary_counts_each_action() -> None:
    images = tuple(ImageOutcome(action, "a", "", "") for action in ACTIONS)

    outcome = RunOutcome(images, "sha256:x", 1.26, 4711, 3)

    assert outcome.summary() == "2 copied, 1 kept, 0 deleted, 1 failed; 4711 bytes from the source in 1.3 s"
    assert not outcome.is_converged


def run_of(bytes_from_source: int, seconds: float = 2.0) -> LastRun:
    return LastRun(NOW, seconds, bytes_from_source, 1, 0, "1 copied")


def test_compose_report_carries_free_bytes_and_link_rate() -> None:
    report = compose_report("shop", FULL, SiteFacts(storage_free_bytes=7, link_bytes_per_second=8), NOW)

    assert (report.storage_free_bytes, report.link_bytes_per_second) == (7, 8)


def test_link_rate_run_that_read_enough_is_measured_and_remembered(tmp_path: Path) -> None:
    store = SatelliteStore(tmp_path)

    measured = link_rate(store, run_of(4 * ENOUGH_BYTES))
    later = link_rate(store, run_of(0, 0.1))

    assert measured == later == 2 * ENOUGH_BYTES


@pytest.mark.parametrize("run", [None, run_of(ENOUGH_BYTES - 1), run_of(ENOUGH_BYTES, 0.0)], ids=repr)
def test_link_rate_before_any_run_could_tell_is_unknown(tmp_path: Path, run: LastRun | None) -> None:
    assert link_rate(SatelliteStore(tmp_path), run) is None


@pytest.mark.parametrize("content", ["", "[]", '{"bytes_per_second": "fast"}'])
def test_link_rate_damaged_file_keeps_nobody_from_reporting(tmp_path: Path, content: str) -> None:
    (tmp_path / LINK_FILE).write_text(content)

    assert link_rate(SatelliteStore(tmp_path), run_of(4 * ENOUGH_BYTES)) == 2 * ENOUGH_BYTES
    (tmp_path / LINK_FILE).write_text(content)
    assert link_rate(SatelliteStore(tmp_path), None) is None
