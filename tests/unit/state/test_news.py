"""What of a report is news, and what is sent of one that has none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from harbor_satellite.state.news import as_before, news_digest
from harbor_satellite.state.wire import AppliedGroup, CachedImage, ImageFailure, StatusReport

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)
BASE: dict[str, Any] = {
    "name": "shop-1",
    "activity": "0 copied, 12 kept; 0 bytes from the source in 0.2 s",
    "state_report_interval": "300s",
    "request_created_time": NOW,
    "image_count": 1,
    "cached_images": [CachedImage(reference="acme/app:v1")],
    "groups": [AppliedGroup(group="shops", generation=3)],
    "storage_free_bytes": 5,
    "own_schedule": "0 3 * * *",
}


def report(**changes: Any) -> StatusReport:
    made = StatusReport(**{**BASE, **changes})
    return made.model_copy(update={"news_digest": news_digest(made)})


@pytest.mark.parametrize(
    "figures",
    [
        {"activity": "0 copied, 12 kept; 0 bytes from the source in 0.3 s"},
        {"request_created_time": None},
        {"storage_free_bytes": 4, "storage_used_bytes": 9},
        {"bytes_today": 4, "bytes_this_month": 5, "bytes_from_source": 6},
        {"link_bytes_per_second": 7},
        {"dropped_receipts": 8},
    ],
    ids=lambda figures: next(iter(figures)),
)
def test_news_digest_of_other_figures_is_the_same(figures: dict[str, Any]) -> None:
    assert report(**figures).news_digest == report().news_digest


@pytest.mark.parametrize(
    "news",
    [
        {"activity": "paused"},
        {"image_count": 2},
        {"cached_images": []},
        {"groups": [AppliedGroup(group="shops", generation=4)]},
        {"failures": [ImageFailure(reference="a", reason="b")]},
        {"own_schedule": ""},
        {"own_timezone": "Europe/Berlin"},
        {"state_report_interval": "60s"},
    ],
    ids=lambda news: next(iter(news)),
)
def test_news_digest_of_news_is_another(news: dict[str, Any]) -> None:
    assert report(**news).news_digest != report().news_digest


def test_news_digest_is_the_same_after_a_journey() -> None:
    sent = report()

    assert news_digest(StatusReport.model_validate_json(sent.model_dump_json(exclude_none=True))) == sent.news_digest


def test_as_before_is_small_and_leans_on_the_same_news() -> None:
    whole = report(cached_images=[CachedImage(reference=f"acme/app:v{number}") for number in range(500)])

    short = as_before(whole)

    raw = short.model_dump_json(exclude_none=True, exclude_defaults=True)
    back = StatusReport.model_validate_json(raw)
    assert (back.is_as_before, back.news_digest, back.storage_free_bytes) == (True, whole.news_digest, 5)
    assert (back.cached_images, back.groups, back.own_schedule) == ([], [], "")
    assert len(raw) < 400
