"""Which satellite is calling: dependencies that turn an ``Authorization`` header into a satellite."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control.api.callers import (
    BasicHeader,
    SharedContext,
    client_address,
    parse_basic,
    refuse_until,
)
from harbor_satellite.ground_control.api.context import Context
from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity


async def require_satellite(request: Request, context: SharedContext, basic: BasicHeader) -> SatelliteIdentity:
    """Return the satellite that calls with its credential."""
    username, secret = parse_basic(basic)
    try:
        # From memory nearly always: that is not worth a thread.
        identity = context.identities.recall(username, secret)
        if identity is None:
            identity = await run_in_threadpool(context.identities.authenticate, username, secret)
    except AuthenticationError:
        # Looked at first and counted after: whoever has the right secret never waits for those who don't.
        refuse_until(context.note_secret_failure((client_address(request), username[:128])))
        raise
    refuse_until(context.limits.satellites.take(identity.satellite_id, context.monotonic()), "too many requests")
    return identity


CallingSatellite = Annotated[SatelliteIdentity, Depends(require_satellite)]


def refuse_too_many_claims(request: Request, context: Context) -> None:
    """Count a wrong one-time token; 429 once an address has sent too many."""
    refuse_until(context.note_secret_failure((client_address(request), "ztr")))
