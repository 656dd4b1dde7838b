"""One run's hold on a site: its lock, and the engine that does the work.

Secrets are read inside the run, from the site's own disk: they are never parameters.
"""

from __future__ import annotations

from harbor_satellite.edge.own_settings import read_settings
from harbor_satellite.edge.own_site import OwnSite, open_own_site
from harbor_satellite.edge.site import effective_settings
from harbor_satellite.errors import StorageError

__all__ = ["Site", "image_workers", "open_site"]

Site = OwnSite
open_site = open_own_site


def image_workers() -> int:
    """Return how many images a run of this site brings at once, as it is about to start."""
    own = read_settings()
    try:
        return effective_settings(own).image_workers
    except StorageError:  # the run itself says what is damaged
        return own.image_workers
