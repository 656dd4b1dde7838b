"""Listings end, hold every item, and notice when they changed while they were read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import httpx
import pytest

from harbor_satellite.errors import RemoteError, SizeLimitError
from harbor_satellite.harbor.client import PAGE_MAX_BYTES
from harbor_satellite.harbor.listing import complete
from tests.unit.harbor.harness import answering


@dataclass
class Listing:
    """A listing whose items have a size, and which may lose or gain some after its pages."""

    names: list[int]
    item_bytes: int = 0
    deleted_after: dict[int, int] = field(default_factory=dict)  # request → item
    sizes: list[int] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        page, size = int(request.url.params["page"]), int(request.url.params["page_size"])
        self.sizes.append(size)
        found = [{"name": name, "pad": "x" * self.item_bytes} for name in self.names[(page - 1) * size : page * size]]
        headers = {"X-Total-Count": str(len(self.names)), "Link": '<page=2>; rel="next"'}
        if (gone := self.deleted_after.get(len(self.sizes))) is not None:
            self.names.remove(gone)
        return httpx.Response(200, content=json.dumps(found), headers={"Content-Type": "application/json", **headers})


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_listing_gives_every_item_once(count: int) -> None:
    with answering(Listing(list(range(count))).answer) as client:
        names = [item["name"] for item in client.items("/things")]

    assert names == list(range(count))


def test_listing_of_large_items_comes_in_smaller_pages() -> None:
    listing = Listing(list(range(130)), item_bytes=PAGE_MAX_BYTES // 40)

    with answering(listing.answer) as client:
        names = [item["name"] for item in client.items("/things")]

    assert names == list(range(130))
    assert listing.sizes == [100, *[20] * 7]


def test_listing_with_an_item_too_large_is_refused() -> None:
    listing = Listing([1], item_bytes=PAGE_MAX_BYTES)

    with answering(listing.answer) as client, pytest.raises(SizeLimitError):
        list(client.items("/things"))

    assert listing.sizes == [100, 20, 4, 1]


def test_complete_listing_that_lost_an_item_meanwhile_is_read_again() -> None:
    listing = Listing(list(range(150)), deleted_after={1: 0})  # item 100 moves to the page that was read

    with answering(listing.answer) as client:
        names = {item["name"] for item in complete(client, "/things", {}, identity="name")}

    assert names == set(range(1, 150))


def test_complete_listing_that_changes_all_the_time_is_given_up() -> None:
    listing = Listing(list(range(150)), deleted_after={1: 0, 3: 1, 5: 2})

    with answering(listing.answer) as client, pytest.raises(RemoteError) as caught:
        complete(client, "/things", {}, identity="name")

    assert caught.value.retryable


def test_complete_listing_of_one_page_is_read_once() -> None:
    listing = Listing(list(range(5)))

    with answering(listing.answer) as client:
        complete(client, "/things", {}, identity="name")

    assert listing.sizes == [100]


@pytest.mark.parametrize(
    ("shown", "headers"), [(5, {"X-Total-Count": "150"}), (150, {})], ids=["fewer than counted", "not counted"]
)
def test_complete_listing_that_cannot_be_known_to_be_whole_is_refused(shown: int, headers: dict[str, str]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        first = (int(request.url.params["page"]) - 1) * 100
        return httpx.Response(
            200, json=[{"name": name} for name in range(first, min(shown, first + 100))], headers=headers
        )

    with answering(answer) as client, pytest.raises(RemoteError, match="not known to be whole"):
        complete(client, "/things", {}, identity="name")
