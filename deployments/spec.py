"""What a deployment is, as a value: no Prefect object, no client, so that it can be compared and tested."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PULL_STEPS: tuple[dict[str, dict[str, str]], ...] = ({"harbor_satellite.project.enter": {}},)
"""How a worker finds the flows: inside the wheel that it was installed with."""


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """One flow, scheduled somewhere."""

    flow: str
    """The flow's name, ``verb-noun``."""
    name: str
    """The deployment's name beside it."""
    entrypoint: str
    """``flows/verb_noun.py:verb_noun``, from the project's folder."""
    work_pool: str
    cron: str = ""
    """5 fields; empty: runs only when asked for."""
    timezone: str = "UTC"
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)
    tags: tuple[str, ...] = ()
    concurrency_limit: int | None = None
    """Runs at once; what comes on top is cancelled, since every run does all there is to do."""
