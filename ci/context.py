"""What every step of a build is told: which source, which version, which mirrors. Plain values; no Dagger here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Mirrors:
    """How containers reach package registries where the public ones cannot be had; all optional.

    The files are mounted as Dagger secrets for the step that needs them: they are in no layer, log or cache key.
    """

    pip_conf: Path | None = None
    """A pip configuration file."""
    apt_sources: Path | None = None
    """A `sources.list` or a deb822 `.sources` file that knows trixie."""
    ca_bundle: Path | None = None
    """Certificates, PEM, of authorities that the mirrors' TLS needs."""


@dataclass(frozen=True)
class Build:
    """One build: the same values give the same digests."""

    source: Path
    """The checkout."""
    version: str
    """PEP 440, from the tag or from the package: `1.4.0`."""
    commit: str
    """Git's, 40 hex digits; empty: not a checkout."""
    epoch: int
    """Seconds: the commit's time; every file and image config is dated so."""
    mirrors: Mirrors = field(default_factory=Mirrors)
    tools: Mapping[str, str] = field(default_factory=dict)
    """Images to be used in place of the table's: a tool's name → reference."""
