"""Images that could not be brought: when to try them again, and when their group goes on without them. Pure.

A failing image never blocks the others for good and is never tried in a hot loop. What only the link did is
no fault of the image: it is tried in every run, and its group waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import PausedError, RemoteError, StorageError

if TYPE_CHECKING:
    from datetime import datetime

    from harbor_satellite.errors import HarborSatelliteError
    from harbor_satellite.oci.digest import Digest

FIRST_WAIT: Final = timedelta(minutes=5)
LONGEST_WAIT: Final = timedelta(hours=24)
SET_ASIDE_AFTER_FAILURES: Final = 3
SET_ASIDE_AFTER: Final = timedelta(hours=1)
"""How long, at least, a peer must have refused an image that it may yet give, before its group goes on without it."""
REASON_MAX_LENGTH: Final = 1000


@dataclass(frozen=True, slots=True, order=True)
class Quarantined:
    """One artifact that failed, and what follows from that."""

    repository: str
    digest: Digest
    reason: str
    failures: int
    """Runs in a row that failed."""
    since: datetime
    retry_at: datetime
    """Not tried before; an operator's own sync tries at once."""
    is_set_aside: bool
    """Whether its groups are published without it."""


def after_failure(
    before: Quarantined | None, repository: str, digest: Digest, error: HarborSatelliteError, now: datetime
) -> Quarantined | None:
    """Decide what follows from one more failure; None where the image is not at fault.

    Args:
        before: what followed from the failures before this one, of the same artifact.
        repository: of the artifact.
        digest: of the artifact.
        error: why it failed this time.
        now: this moment.
    """
    if isinstance(error, PausedError | StorageError) or (isinstance(error, RemoteError) and _is_link(error)):
        return before
    first = before or Quarantined(repository, digest, "", 0, now, now, is_set_aside=False)
    failures = first.failures + 1
    wait = min(FIRST_WAIT * 2 ** min(first.failures, 16), LONGEST_WAIT)
    is_lasting = failures >= SET_ASIDE_AFTER_FAILURES and now - first.since >= SET_ASIDE_AFTER
    return replace(
        first,
        reason=f"{type(error).__name__}: {error}"[:REASON_MAX_LENGTH],
        failures=failures,
        retry_at=now if error.retryable and not is_lasting else now + wait,
        is_set_aside=not error.retryable or is_lasting,
    )


def is_ahead(moment: datetime, now: datetime) -> bool:
    """Tell whether a moment is still to come; one that no wait leads to was set by a clock that was wrong."""
    return now < moment <= now + LONGEST_WAIT


def _is_link(error: RemoteError) -> bool:
    """Tell whether nobody answered, or not for want of this image: the log-in failed, or the peer is not up now."""
    return error.status in {None, 401, 429, 502, 503, 504}
