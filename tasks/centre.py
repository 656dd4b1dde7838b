"""One run's hold on the centre: its database, its source registry, and who sites are told to pull from.

Secrets are read here, inside the run, from the process's settings: they are never parameters.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from harbor_satellite.ground_control.database import make_engine, make_session_factory, reading
from harbor_satellite.ground_control.groups.signing import SigningPusher, StateSigner
from harbor_satellite.ground_control.satellites.rotation import renewal_before
from harbor_satellite.ground_control.satellites.source_factory import open_source
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.cosign import Cosign, RegistryAccess
from harbor_satellite.registry.state_store import StatePusher
from harbor_satellite.satellite.connections import registry_host
from harbor_satellite.settings import GroundControlSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.groups.signing import Pusher
    from harbor_satellite.ground_control.satellites.sources import Source


class Centre:
    """What the tasks of one central run share. Not a dataclass, so that Prefect does not look inside."""

    def __init__(self, settings: GroundControlSettings, sessions: SessionFactory, source: Source) -> None:
        self.settings = settings
        self.sessions = sessions
        self.source = source
        self.problems: list[str] = []
        """What went wrong with single satellites; the run fails at its end, after all others were served."""

    def reading(self) -> contextlib.AbstractContextManager[Session]:
        """Open a session that takes no lock."""
        return reading(self.sessions)

    @property
    def public_url(self) -> str:
        """The source registry as the sites reach it."""
        return self.settings.source_public_url or self.settings.source_url

    @property
    def renewal_before(self) -> timedelta:
        """How long before its end a credential is renewed."""
        return renewal_before(self.settings.robot_duration_days, self.settings.renewal_before_days)

    @property
    def renewal_grace(self) -> timedelta:
        """How long after its end a credential may still ask for the next one."""
        return timedelta(days=self.settings.renewal_grace_days)

    @property
    def superseded_grace(self) -> timedelta:
        """How long a credential is kept at the source once the next one is used."""
        return timedelta(seconds=self.settings.superseded_grace_seconds)

    @property
    def pusher(self) -> Pusher:
        """Who pushes states to the source, and signs them if there is a key."""
        url, verify = self.settings.source_url, _verify(self.settings)
        pusher = StatePusher(registry_host(url), url.startswith("http://"), self._credentials(), verify)
        return SigningPusher(pusher, self.signer) if self.signer else pusher

    @cached_property
    def signer(self) -> StateSigner | None:
        """Who signs states at the source; None if there is no key."""
        settings = self.settings
        if settings.signing_key is None:
            return None
        access = RegistryAccess(settings.source_url, self._credentials(), settings.source_ca)
        return StateSigner(Cosign(settings.cosign), access, settings.signing_key, settings.signing_key_password)

    @contextlib.contextmanager
    def source_of(self, registry: str) -> Iterator[HttpRegistry]:
        """Open the registry that a group names, with the centre's credentials if it is the centre's own."""
        is_own = self.is_own(registry)
        with HttpRegistry(
            self.settings.source_url if is_own else registry,
            credentials=self._credentials() if is_own else None,
            verify=_verify(self.settings),
        ) as source:
            yield source

    def is_own(self, registry: str) -> bool:
        """Whether a group's registry is the centre's own, by its inside or its outside address."""
        own = {registry_host(self.settings.source_url), registry_host(self.public_url)}
        return not registry or registry_host(registry) in own

    def _credentials(self) -> Credentials | None:
        username = self.settings.source_username
        return Credentials(username, self.settings.source_password) if username else None


@contextlib.contextmanager
def open_centre() -> Iterator[Centre]:
    """Open the centre's database for one run."""
    settings = GroundControlSettings()
    engine = make_engine(settings.database())
    try:
        with open_source(
            settings.source_kind,
            settings.source_url,
            settings.source_username,
            settings.source_password,
            verify=_verify(settings),
            htpasswd=settings.source_htpasswd,
            robot_duration_days=settings.robot_duration_days,
        ) as source:
            yield Centre(settings, make_session_factory(engine), source)
    finally:
        engine.dispose()


def _verify(settings: GroundControlSettings) -> bool | str:
    return str(settings.source_ca) if settings.source_ca else True
