"""What bundles call things: annotations of their index.json, and the state that is put together for one. Pure."""

from __future__ import annotations

from typing import Final

CREATED: Final = "org.opencontainers.image.created"
STATE: Final = "io.goharbor.satellite.state"
"""Reference of the satellite state that a bundle carries."""
STATE_DIGEST: Final = "io.goharbor.satellite.state.digest"
SATELLITE: Final = "io.goharbor.satellite.name"
PLATFORMS: Final = "io.goharbor.satellite.platforms"
"""Separated by commas; empty: all."""
IS_INCREMENTAL: Final = "io.goharbor.satellite.incremental"
"""``true``: what a receipt named was left out."""

BUNDLE_HOST: Final = "bundle.invalid"
"""The registry that states made for a bundle name (RFC 2606); nobody is ever asked there."""
BUNDLE_STATE_REPOSITORY: Final = "harbor-satellite/bundle/state"
"""Where a bundle keeps the satellite state that was put together from group states given by hand."""
