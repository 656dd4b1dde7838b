"""Roots that served and do not any more: their content was taken over, and stays a while for whoever would go back.

What must not live here: taking over (``registry_switch``).
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.own_registry import CHANGING, Left, load_current, registry_folder, save_current
from harbor_satellite.registry.layout_files import storage_errors
from harbor_satellite.satellite.replication import utc_now

if TYPE_CHECKING:
    from harbor_satellite.edge.own_registry import Current, Place
    from harbor_satellite.settings import SatelliteSettings

_LOG = logging.getLogger(__name__)
_LEFT_STAYS: Final = timedelta(hours=48)


def also_left(left: tuple[Left, ...], place: Place) -> tuple[Left, ...]:
    """Note that a place does not serve any more."""
    if not place.root:
        return left
    return (*(one for one in left if one.root != place.root), Left(place.root, utc_now()))


def remove_left(site: SatelliteSettings, current: Current) -> None:
    """Remove roots that were left long enough ago for whoever would go back: each is as large as what serves.

    Raises:
        StorageError: the disk refuses.
    """
    old = [left for left in current.left if utc_now() - left.at >= _LEFT_STAYS]
    for left in old:
        if is_ours(site, left.root) and left.root != current.place.root:
            remove_root(Path(left.root))
        else:
            _LOG.warning("the content of this root was taken over, and it is not ours to remove root=%s", left.root)
    if old:
        with CHANGING:
            now = load_current(site.data_dir) or current
            save_current(site.data_dir, replace(now, left=tuple(left for left in now.left if left not in old)))


def is_ours(site: SatelliteSettings, root: str) -> bool:
    """Tell whether a root is a folder that the agent chose itself, and not one that an operator named."""
    return Path(root).parent == registry_folder(site.data_dir)


def remove_root(root: Path) -> None:
    """Remove a root, if it is there.

    Raises:
        StorageError: the disk refuses.
    """
    with storage_errors(root, "removing what was taken over"):
        if root.exists():
            shutil.rmtree(root)
            _LOG.info("removed root=%s", root)
