"""One run's hold on a site: its lock, and the engine that does the work.

Secrets are read inside the run, from the site's own disk: they are never parameters.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.own_settings import read_settings
from harbor_satellite.edge.own_site import OwnSite, open_own_site, wait_for_local_run
from harbor_satellite.edge.site import effective_settings
from harbor_satellite.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Site", "image_workers", "open_site"]

Site = OwnSite
_LOCAL_RUN_SECONDS: Final = 600.0


@contextlib.contextmanager
def open_site(satellite: str) -> Iterator[Site]:
    """Take the site's lock and open its registries.

    A run of the site's own timer is waited for, so that Prefect sees what became of the site.

    Raises:
        NotFoundError: this site is not registered.
        ConflictError: another run is under way.
    """
    wait_for_local_run(_LOCAL_RUN_SECONDS)
    with open_own_site(satellite) as site:
        yield site


def image_workers() -> int:
    """Return how many images a run of this site brings at once, as it is about to start."""
    own = read_settings()
    try:
        return effective_settings(own).image_workers
    except StorageError:  # the run itself says what is damaged
        return own.image_workers
