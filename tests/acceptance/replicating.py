"""A site behind a link that is counted, shaped and cut, and a centre reduced to its registry: no Ground Control.

What the centre decides is pushed as its flow pushes it; the site is registered by the file that a registration
leaves. So a test can decide something new in a moment, and its site runs the real commands all the same.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.state_store import StatePusher
from tests.acceptance import artifacts
from tests.acceptance.site import Run, Site
from tests.fakes.link import link
from tests.fixtures_registry import run_cncf, run_embedded, run_zot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.processes import Child
    from tests.acceptance.centre import Wanted
    from tests.fakes.link import Link
    from tests.fixtures_registry import RunningRegistry

SATELLITE: Final = "shop-1"
_RUN_SECONDS: Final = 60.0
_SCHEDULED: Final = """
import json
from harbor_satellite.edge.site import open_own_engine
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.satellite.sync import sync_satellite
from harbor_satellite.settings import SatelliteSettings
settings = SatelliteSettings()
store = SatelliteStore(settings.data_dir)
registration = store.registration()
with store.lock(), open_own_engine(settings, store, registration, settings.replication_options()) as engine:
    print(json.dumps([image.row() for image in sync_satellite(engine, registration.state).images]))
"""


@dataclass
class Place:
    """The centre's registry, the link to it, and the site at its other end."""

    folder: Path
    source: RunningRegistry
    central: HttpRegistry
    """The centre's registry as the centre reaches it: uncounted, and up when the link is down."""
    wan: Link
    generations: dict[str, int] = field(default_factory=dict)
    """Of each group, as of the last decision."""

    @property
    def url(self) -> str:
        """The centre's registry as the site reaches it."""
        return self.wan.url

    def push(self, reference: str, content: str, size: int = artifacts.LAYER_BYTES) -> str:
        """Push an image of one layer to the centre; return its digest."""
        return artifacts.push_simple_image(self.central, reference, content, size)

    def decide(
        self,
        groups: Wanted,
        keys: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        is_rollback: bool = False,
        **all_keys: Any,
    ) -> Digest:
        """Have the satellite follow exactly these groups of "repository:tag" → digest.

        Args:
            groups: with their images.
            keys: keys of some groups' states besides those, such as another ``registry``.
            is_rollback: the centre went back on purpose.
            all_keys: keys of every group's state, such as ``policy``.

        Returns:
            The digest of the satellite's state.
        """
        pusher = StatePusher(self.source.host, plain_http=True)
        pins: list[dict[str, Any]] = []
        for group, images in sorted(groups.items()):
            generation = self.generations[group] = self.generations.get(group, 0) + 1
            repository = f"satellite/group-state/{group}/state"
            own = dict((keys or {}).get(group, {}))
            raw = json.dumps(self.group_state(group, images, generation) | all_keys | own).encode()
            digest = pusher.push(repository, (str(generation), "latest"), raw)
            state = f"{self.wan.host}/{repository}:{generation}@{digest}"
            pins.append({"group": group, "state": state, "generation": generation, "rollback": is_rollback})
        raw = json.dumps({"states": [], "config": "", "satellite": SATELLITE, "groups": pins}).encode()
        return pusher.push(f"satellite/satellite-state/{SATELLITE}/state", ("latest",), raw)

    def group_state(self, group: str, images: Mapping[str, str], generation: int = 0) -> dict[str, Any]:
        """Write a group's state, with the sizes that a publishing finds."""
        return {
            "group": group,
            "registry": self.wan.url,
            "generation": generation,
            "artifacts": [self._entry(reference, digest) for reference, digest in sorted(images.items())],
        }

    def _entry(self, reference: str, digest: str) -> dict[str, Any]:
        repository, _, tag = reference.partition(":")
        size = artifacts.size_of(self.central, repository, digest)
        entry = {"repository": repository, "tag": [tag], "type": "IMAGE", "digest": digest, "referrers": []}
        return entry | ({"size": size} if size else {})

    def wait_published(self, satellite: str, wanted: Wanted) -> None:
        """Do nothing: what is decided is published."""


def kill(child: Child) -> None:
    """End a process as a power cut does, wherever it is."""
    if child.returncode is None:
        os.kill(child.pid, signal.SIGKILL)
    child.wait(_RUN_SECONDS)


def wait_for(look: Callable[[], bool], child: Child) -> None:
    """Wait until something is seen; fail if the process ends, or patience does, before that."""
    deadline = time.monotonic() + _RUN_SECONDS
    while not look():
        assert child.returncode is None, f"{child.name} ended with status {child.returncode} before that was seen"
        assert time.monotonic() < deadline, "patience ended"
        time.sleep(0.005)


def until_done(site: Site) -> Run:
    """Run ``edge sync`` until it has nothing left to do; a cut that was still under way may fail one."""
    run = site.sync()
    for _ in range(2):
        if run.returncode:
            run = site.sync()
    assert run.returncode == 0, run.log
    return run


@contextmanager
def run_place(folder: Path, *, kind: str = "") -> Iterator[tuple[Place, Site]]:
    """Run the centre's registry, the link and a registered site until the context ends.

    Args:
        folder: a new one for their files.
        kind: ``cncf`` or ``embedded``; empty: CNCF distribution where it is on PATH, else embedded.
    """
    kind = kind or ("cncf" if shutil.which("registry") else "embedded")
    start = {"cncf": run_cncf, "embedded": run_embedded}[kind]
    with ExitStack() as stack:
        source = stack.enter_context(start(folder / "central"))
        central = stack.enter_context(HttpRegistry(source.url))
        wan = stack.enter_context(link(source.host))
        place = Place(folder, source, central, wan)
        site = stack.enter_context(Site(SATELLITE, folder / SATELLITE, place))
        _register(place, site)
        yield place, site


@contextmanager
def local_registry(site: Site, folder: Path, kind: str) -> Iterator[str]:
    """Have the site keep its images in another kind of registry, ``zot`` or ``cncf``; gives its URL."""
    if kind == "embedded":
        yield site.url
        return
    with {"zot": run_zot, "cncf": run_cncf}[kind](folder / kind) as running:
        site.keep_images_at(running.url)
        yield running.url


def run_scheduled(site: Site) -> Run:
    """Replicate as the schedule does, in a process of its own: nobody asked for it, so quarantine holds."""
    done = site.python(_SCHEDULED)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    said = {action: [row for row in rows if row["action"] == action] for action in {row["action"] for row in rows}}
    return Run(0, said, done.stderr)


def _register(place: Place, site: Site) -> None:
    site.data_dir.mkdir(parents=True, mode=0o700)
    document = {
        "auth": {"url": place.url, "username": "", "password": ""},
        "state": f"{place.url}/satellite/satellite-state/{SATELLITE}/state:latest",
        "satellite": SATELLITE,
    }
    (site.data_dir / "registration.json").write_text(json.dumps(document))
