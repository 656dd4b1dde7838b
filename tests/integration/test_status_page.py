"""The status page in a real browser, as a technician sees it: on a laptop and on a telephone, by day and by night."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.status_server import StatusApp
from harbor_satellite.registry.server_process import RegistryServer
from tests.fakes import statuses
from tests.fakes.browser import PROGRAM, running_browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.satellite.status import SiteStatus
    from tests.fakes.browser import Page

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: the status page is not looked at")
WIDTHS = (1200, 390)
_VISIBLE = "document.body.innerText"
_HIDDEN_BELOW = "document.querySelector('.problems').getBoundingClientRect().bottom"
_RED = "getComputedStyle(document.querySelector('.health')).backgroundColor"


class Site:
    """A status that can be changed, and its server."""

    def __init__(self) -> None:
        self.status: SiteStatus = statuses.well()
        self._now = 0.0
        self.server = RegistryServer(StatusApp(lambda: self.status, monotonic=self._later), "127.0.0.1", 0)

    def _later(self) -> float:
        self._now += 10
        return self._now


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with running_browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.run)
    thread.start()
    yield site
    site.server.stop()
    thread.join(10)


def look(page: Page, site: Site, status: SiteStatus, width: int, *, is_dark: bool = False) -> str:
    """Return the text that is seen; the page must fit the width, and the browser must not complain."""
    site.status = status
    page.complaints.clear()
    page.open(f"{site.server.url}/", width, is_dark=is_dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.complaints == []  # a blocked style would be one
    return str(page.evaluate(_VISIBLE))


@pytest.mark.parametrize("width", WIDTHS)
def test_page_of_a_site_that_is_well_says_so_and_what_comes_next(page: Page, site: Site, width: int) -> None:
    text = look(page, site, statuses.well(), width)

    assert "shop-0042" in text
    assert "All is well" in text
    assert "in 47 min" in text
    assert "41.0 GB" in text
    assert page.evaluate("document.querySelectorAll('.problems').length") == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_page_with_the_link_away_says_what_is_wrong_and_since_when_without_scrolling(
    page: Page, site: Site, width: int
) -> None:
    text = look(page, site, statuses.away(), width)

    assert "Something is wrong" in text
    assert "Ground Control is out of reach: connection timed out; 74 reports wait" in text
    assert "since Fri 20 Nov 06:12 CET, 3 days ago" in text
    assert "acme/loyalty:v9" in text
    assert "<b>got</b>" in text  # what a peer says is text
    assert page.evaluate(_HIDDEN_BELOW) <= 900
    assert page.evaluate(_RED) == "rgb(195, 38, 43)"


@pytest.mark.parametrize("width", WIDTHS)
def test_page_of_a_new_machine_says_how_to_register(page: Page, site: Site, width: int) -> None:
    text = look(page, site, statuses.unregistered(), width)

    assert "This site is not registered" in text
    assert "harbor-satellite edge register" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_page_with_a_full_disk_says_how_much_is_left(page: Page, site: Site, width: int) -> None:
    text = look(page, site, statuses.disk_full(), width)

    assert "The disk is nearly full: 1.0 GB are free" in text
    assert page.evaluate("document.querySelector('.tile.failing .value').innerText") == "1.0 GB"


@pytest.mark.parametrize("width", WIDTHS)
def test_page_with_three_hundred_images_shows_them_all(page: Page, site: Site, width: int) -> None:
    look(page, site, statuses.many_images(), width)

    assert page.evaluate("document.querySelectorAll('.images td:first-child').length") == 300


def test_page_by_night_is_dark(page: Page, site: Site) -> None:
    look(page, site, statuses.well(), 1200, is_dark=True)

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 23, 29)"


def test_page_runs_no_script(page: Page, site: Site) -> None:
    look(page, site, statuses.well(), 1200)

    made = "const s = document.createElement('script'); s.text = 'window.harmed = 1'; document.head.append(s)"
    assert page.evaluate(f"{made}; window.harmed") is None
