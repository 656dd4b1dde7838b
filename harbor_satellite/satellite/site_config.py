"""What the centre's config says at this site: kept on disk, and the serial of the state that said it.

A state with a lower serial than the last one taken is a replay, however well it is signed. What must not live here:
how the config is weighed against the site's own settings (``settings/``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import HarborSatelliteError, UntrustedDataError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.config import SatelliteConfig, config_json, read_config
from harbor_satellite.state.json_values import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harbor_satellite.errors import PausedError
    from harbor_satellite.satellite.options import WanLimits
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.satellite.wan import WanGate
    from harbor_satellite.state.satellite_state import SatelliteState

_LOG = logging.getLogger(__name__)
_FILE: Final = "site-config.json"
NO_CONFIG: Final = SatelliteConfig()


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """What the centre said last about how this site shall work."""

    serial: int = 0
    """Of the last satellite state that was taken; 0: none had one, or the site is registered anew."""
    state_digest: Digest | None = None
    """The satellite state that said so."""
    config: SatelliteConfig = NO_CONFIG

    @property
    def digest(self) -> str:
        """Digest of what is applied, for reports; empty if the centre said nothing."""
        document = config_json(self.config)
        return str(Digest.of(canonical_json(document))) if document else ""

    @property
    def sets_bounds(self) -> bool:
        """Whether the centre bounds when or how much this site may read."""
        config = self.config
        return bool(config.sync_windows) or config.daily_bytes is not None or config.monthly_bytes is not None


def load_site_config(store: SatelliteStore) -> SiteConfig:
    """Read what the centre said; nothing before the first state that says something.

    Raises:
        StorageError: the file is damaged.
    """
    return store.parsed(_FILE, _site_config)


def forget_serial(store: SatelliteStore) -> None:
    """Let the next state have any serial: the site is registered anew, maybe at a centre that counts from the start."""
    known = load_site_config(store)
    if known.serial:
        _save(store, replace(known, serial=0))


def check_serial(state: SatelliteState, lowest: int, what: str) -> None:
    """Do nothing if a satellite state is not older than one that was taken before.

    Raises:
        UntrustedDataError: it is, or has no serial although the one before had.
    """
    if state.serial < lowest:
        raise UntrustedDataError(
            f"the satellite state {what} went back from serial {lowest} to {state.serial}; keeping what is here"
        )


class SiteConfigKeeper:
    """Takes over what a run hears from the centre.

    Args:
        store: the site's disk; its lock is held by the caller.
        gate: the run's bounds on the link; None: nothing crosses a link.
        limits_of: the bounds under a config, the site's own settings included; None: they stay as they are.
    """

    def __init__(
        self, store: SatelliteStore, gate: WanGate | None, limits_of: Callable[[SatelliteConfig], WanLimits] | None
    ) -> None:
        self._store = store
        self._gate = gate
        self._limits_of = limits_of

    @property
    def known(self) -> SiteConfig:
        """What the centre said last."""
        return load_site_config(self._store)

    def hear(
        self,
        paused: PausedError,
        current: Callable[[], Digest],
        fetch: Callable[..., tuple[SatelliteState, Digest]],
    ) -> None:
        """Ask whether the centre has lifted bounds that it set: else a wrong config could never be put right.

        Args:
            paused: why nothing else may be read now.
            current: asks for the digest of the current satellite state.
            fetch: fetches it, verified, given the lowest ``serial``.

        Raises:
            PausedError: the bounds are the site's own, or the centre could not be asked.
        """
        known = self.known
        if self._gate is None or self._limits_of is None or not known.sets_bounds:
            raise paused
        try:
            with self._gate.permitted():
                if current() != known.state_digest:
                    self.accept(*fetch(serial=known.serial))
        except HarborSatelliteError as error:
            _LOG.warning("config not asked for while paused: %s", error)
            raise paused from error

    def accept(self, state: SatelliteState | None, digest: Digest) -> None:
        """Keep what a verified satellite state says, and bound the rest of this run by it.

        Workers, platforms and intervals are those of the next run on.

        Raises:
            StorageError: it cannot be kept.
        """
        before = self.known
        if state is None or before.state_digest == digest:
            return
        after = SiteConfig(state.serial, digest, state.settings or NO_CONFIG)
        _save(self._store, after)
        for problem in state.problems:
            _LOG.warning("config field ignored: %s", problem)
        if after.config != before.config:
            _LOG.info("config applied digest=%s serial=%d", after.digest or "none", after.serial)
            if self._gate and self._limits_of:
                self._gate.change(self._limits_of(after.config))


def _save(store: SatelliteStore, known: SiteConfig) -> None:
    document = {
        "serial": known.serial,
        "state_digest": str(known.state_digest) if known.state_digest else None,
        "config": config_json(known.config),
    }
    store.write_document(_FILE, document)


def _site_config(document: Mapping[str, Any] | None) -> SiteConfig:
    if document is None:
        return SiteConfig()
    digest = document["state_digest"]
    # Read leniently: an older release may have to go on with what a newer one kept.
    return SiteConfig(
        int(document["serial"]), Digest.parse(digest) if digest else None, read_config(document["config"])[0]
    )
