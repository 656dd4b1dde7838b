"""Since when the centre is out of reach, or lets the site not in, kept on disk: who stands at the site asks that first.

Written when it changes, not with every request: the site may run from a memory card for years.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.satellite.store import SatelliteStore

_LOG = logging.getLogger(__name__)
CENTRE_FILE: Final = "centre.json"
_REASON_MAX: Final = 500  # characters


@dataclass(frozen=True, slots=True)
class CentreContact:
    """Whether the centre answers; of a site that is not registered yet, whether it lets the site in."""

    away_since: datetime | None = None
    """None: it answered last time, or was never asked."""
    reason: str = ""


def load_contact(store: SatelliteStore) -> CentreContact:
    """Read what was noted last.

    Raises:
        StorageError: the file is damaged.
    """
    return store.parsed(CENTRE_FILE, _contact)


def note_contact(store: SatelliteStore, reason: str, now: datetime) -> None:
    """Note that the centre answers, or why it does not; a disk that refuses costs a warning.

    Args:
        store: the satellite's folder.
        reason: why it does not; empty: it does.
        now: the time.
    """
    known = CentreContact()
    with contextlib.suppress(StorageError):  # a damaged file is replaced: it is worth nothing
        known = load_contact(store)
    reason = reason[:_REASON_MAX]
    if reason == known.reason and bool(reason) == (known.away_since is not None):
        return
    since = (known.away_since or now).isoformat() if reason else None
    document = {"away_since": since, "reason": reason}
    try:
        store.write_document(CENTRE_FILE, document)
    except StorageError as error:
        _LOG.warning("not noted whether the centre answers: %s", error)


def _contact(document: Mapping[str, Any] | None) -> CentreContact:
    since = document["away_since"] if document else None
    if document is None or since is None:
        return CentreContact()
    return CentreContact(datetime.fromisoformat(since), str(document["reason"]))
