"""The site's own settings over the years: read anew when a file changes, and kept when what it says is wrong.

What must not live here: what a setting means (``settings/satellite.py``), what is done about a change (``agent.py``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from harbor_satellite.edge.site import effective_settings
from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.satellite.files import file_mark
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.settings.satellite import env_file

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger(__name__)
_FROM_CENTRE: Final = "site-config.json"
_REGISTRY: Final = "registry/current.json"

Mark = tuple[tuple[int, int, int] | None, ...]


class OwnSettings:
    """The settings of a site's process, the last good ones where what is there now is wrong.

    Args:
        first: those that the process started with.
        read: reads them anew.
    """

    def __init__(self, first: SatelliteSettings, read: Callable[[], SatelliteSettings] = SatelliteSettings) -> None:
        self._read = read
        self._files = [first.data_dir / name for name in (_FROM_CENTRE, _REGISTRY)]
        if (path := env_file()) is not None:
            self._files.append(path)
        self._mark: Mark | None = None
        self.own = first
        """Without the centre's config."""
        self.effective = first
        """With it."""
        self.look()

    def look(self) -> bool:
        """Read anew what has changed on disk since the last look; tell whether a setting has."""
        mark = tuple(map(file_mark, self._files))
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            own = self._read()
            effective = effective_settings(own, SatelliteStore(self.own.data_dir))
        except (HarborSatelliteError, ValidationError) as error:
            _LOG.warning("settings not taken over, the last good ones hold reason=%s", _said(error))
            return False
        before = self.effective
        self.own, self.effective = own, effective
        return effective != before


def read_settings() -> SatelliteSettings:
    """Read the site's own settings; in a process that has read good ones before, those, if they are wrong now."""
    try:
        _GOOD[:] = [SatelliteSettings()]
    except (HarborSatelliteError, ValidationError) as error:
        if not _GOOD:
            raise
        _LOG.warning("settings not taken over, the last good ones hold reason=%s", _said(error))
    return _GOOD[0]


_GOOD: Final[list[SatelliteSettings]] = []


def _said(error: Exception) -> str:
    """Say what is wrong in one line, without the value: it may be a secret."""
    if isinstance(error, ValidationError):
        problems = error.errors(include_input=False, include_url=False)
        return "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems)
    return str(error)
