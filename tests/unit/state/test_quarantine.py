from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import (
    DigestMismatchError,
    HarborSatelliteError,
    PausedError,
    RemoteError,
    SignatureError,
    StorageError,
)
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.quarantine import FIRST_WAIT, LONGEST_WAIT, SET_ASIDE_AFTER, Quarantined, after_failure

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIGEST = Digest.of(b"app")
PERMANENT = [RemoteError("gone", status=404), DigestMismatchError("other bytes"), SignatureError("not signed")]
NOT_ITS_FAULT = [
    RemoteError("nobody answers", retryable=True),
    RemoteError("log in", status=401),
    RemoteError("too many", status=429, retryable=True),
    RemoteError("not now", status=503, retryable=True),
    PausedError("no window"),
    StorageError("full"),
]


def fail(before: Quarantined | None, error: HarborSatelliteError, now: datetime = NOW) -> Quarantined | None:
    return after_failure(before, "acme/app", DIGEST, error, now)


@pytest.mark.parametrize("error", PERMANENT, ids=lambda error: type(error).__name__)
def test_after_failure_permanent_sets_aside_at_once_and_waits(error: HarborSatelliteError) -> None:
    item = fail(None, error)

    assert item is not None
    assert (item.is_set_aside, item.failures, item.retry_at) == (True, 1, NOW + FIRST_WAIT)
    assert str(error) in item.reason


@pytest.mark.parametrize("error", NOT_ITS_FAULT, ids=lambda error: f"{type(error).__name__} {error}")
def test_after_failure_of_link_or_site_leaves_image_as_it_was(error: HarborSatelliteError) -> None:
    before = fail(None, PERMANENT[0])

    assert fail(None, error) is None
    assert fail(before, error) == before


def test_after_failure_refused_by_a_peer_holds_the_group_and_is_tried_in_every_run() -> None:
    item = fail(fail(None, busy := RemoteError("broken", status=500, retryable=True)), busy, NOW + timedelta(minutes=5))

    assert item is not None
    assert (item.is_set_aside, item.retry_at) == (False, NOW + timedelta(minutes=5))


def test_after_failure_refused_for_long_no_longer_holds_the_group() -> None:
    item: Quarantined | None = None
    for turn in range(3):
        item = fail(item, RemoteError("broken", status=500, retryable=True), NOW + turn * SET_ASIDE_AFTER)

    assert item is not None
    assert item.is_set_aside
    assert item.retry_at > NOW + 2 * SET_ASIDE_AFTER


@given(st.lists(st.sampled_from(PERMANENT), min_size=1, max_size=40))
def test_after_failure_waits_grow_to_a_day_and_no_further(errors: list[HarborSatelliteError]) -> None:
    item, waits, now = None, [], NOW
    for error in errors:
        item = fail(item, error, now)
        assert item is not None
        waits.append(item.retry_at - now)
        now = item.retry_at

    assert waits == sorted(waits)
    assert waits[-1] <= LONGEST_WAIT
    assert item is not None
    assert item.since == NOW
