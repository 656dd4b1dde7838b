"""A registered site and its centre's states, for workloads that run inside one warm process, as an edge worker does."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from harbor_satellite.edge.site import open_home, open_own_engine
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.state_store import StatePusher
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.satellite.sync import sync_satellite
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.state.names import group_name, group_state_repository, satellite_name, satellite_state_repository
from harbor_satellite.state.satellite_state import SatelliteState, StatePin, satellite_state_json
from harbor_satellite.state.wire import Registration, RegistryAuth
from tests.benchmarks import measure
from tests.fakes.link import link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harbor_satellite.satellite.outcome import RunOutcome
    from tests.benchmarks.corpus import Corpus
    from tests.fakes.link import Link

_GROUP = group_name("bench")
_SATELLITE = satellite_name("bench")


@dataclass(frozen=True, slots=True)
class WarmSite:
    """A site with an embedded registry, behind a line of RTT 50 ms; its connection to the source stays open."""

    line: Link
    source_host: str
    corpus: Corpus
    settings: SatelliteSettings
    store: SatelliteStore
    home: HttpRegistry

    def publish(self, generation: int) -> None:
        """Push the group's state and the satellite state that pins it, as the centre does."""
        pusher = StatePusher(self.source_host, plain_http=True)
        repository = group_state_repository(_GROUP)
        state = self.corpus.state_json(self.line.url, generation=generation)
        digest = pusher.push(repository, (str(generation), "latest"), state)
        pin = StatePin(_GROUP, Reference(self.line.host, repository, "latest", digest), generation)
        raw = satellite_state_json(SatelliteState(_SATELLITE, (pin,), scheme="http"))
        pusher.push(satellite_state_repository(_SATELLITE), ("latest",), raw)

    def sync(self) -> RunOutcome:
        """Replicate once, as one run of the edge worker."""
        registration = self.store.registration()
        options = self.settings.replication_options(is_asked_for=True)
        with (
            self.store.lock(),
            open_own_engine(self.settings, self.store, registration, options, home=self.home) as engine,
        ):
            return sync_satellite(engine, registration.state)


@contextmanager
def warm_site(source_kind: str, fill: Callable[[HttpRegistry], Corpus]) -> Iterator[WarmSite]:
    """Run a site that has replicated its first state."""
    with ExitStack() as stack:
        source = stack.enter_context(measure.registry(source_kind))
        target = stack.enter_context(measure.registry("embedded"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harbor-satellite-site-")))
        line = stack.enter_context(link(source.host))
        with HttpRegistry(source.url) as opened:
            corpus = fill(opened)
        store = SatelliteStore(folder)
        state_url = f"{line.url}/{satellite_state_repository(_SATELLITE)}:latest"
        auth = RegistryAuth(url=line.url, username="", password=SecretStr(""))
        registration = Registration(auth=auth, state=state_url, satellite=_SATELLITE)
        store.save_registration(registration)
        settings = SatelliteSettings(data_dir=folder, local_registry_url=target.url, image_workers=16)
        home = stack.enter_context(open_home(settings, registration))
        site = WarmSite(line, source.host, corpus, settings, store, home)
        site.publish(1)
        first = site.sync()
        if not first.is_converged:
            raise RuntimeError(f"the site did not come in step: {first.summary()}")
        line.shape(rtt_seconds=0.05)
        yield site
