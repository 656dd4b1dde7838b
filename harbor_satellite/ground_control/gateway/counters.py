"""What the gateway counts, as plain integers; how they are shown is somebody else's business."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class GatewayCounters:
    """Since this process started; only the event loop's thread writes them."""

    calls_to_prefect: int = 0
    """HTTP requests sent to Prefect, whatever for."""
    allowed: int = 0
    """Calls of sites that were passed on to Prefect."""
    answered_from_memory: int = 0
    """Calls of sites that were answered without Prefect."""
    polls_answered_from_memory: int = 0
    """Of those: polls of pools with nothing due."""
    denied: int = 0
    """Calls refused since they are not in the table, or are about what is not the satellite's own."""
    unauthenticated: int = 0
    """Calls without a good credential."""
    throttled: int = 0
    """Calls of satellites that had too many under way."""
    maintenance: int = 0
    """Calls answered "come again", since Prefect or the database was away."""
    events_passed: int = 0
    events_dropped: int = 0
    """Frames of events that were not about the satellite's own, or malformed."""
