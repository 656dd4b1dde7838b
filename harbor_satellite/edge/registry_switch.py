"""Moving a site to another registry with all that it holds: another kind, another root, or somebody else's.

The one that serves goes on serving until the other has everything; ``registry/current.json`` says how far it is, so
that whatever is killed, the next call goes on. What must not live here: the copying (``satellite/adoption.py``).
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.left_roots import also_left, is_ours, remove_left, remove_root
from harbor_satellite.edge.own_registry import (
    CHANGING,
    Access,
    Current,
    Place,
    access_of,
    load_current,
    registry_folder,
    save_current,
    wanted_place,
    writer,
)
from harbor_satellite.edge.registry_process import LOOPBACK
from harbor_satellite.edge.registry_service import (
    REGISTRY,
    refresh_plan,
    registry_problem,
    with_site_config,
)
from harbor_satellite.edge.services import read_sightings
from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, RemoteError, StorageError
from harbor_satellite.processes import free_port
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.satellite.adoption import AdoptionOptions, adopt, check_answers, look_again
from harbor_satellite.satellite.adoption_journal import AdoptionJournal
from harbor_satellite.satellite.adoption_source import LeftRegistryError
from harbor_satellite.satellite.disk import DiskGuard
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harbor_satellite.satellite.adoption import Adopted
    from harbor_satellite.settings import SatelliteSettings

_LOG = logging.getLogger(__name__)
_START_SECONDS: Final = 90.0
"""For a registry to answer after it is in the plan: a small machine that is busy takes long."""
_POLL_SECONDS: Final = 0.2
_SAY_SECONDS: Final = 300.0
_GIVE_UP: Final = timedelta(minutes=15)
"""So long is a registry that holds the content waited for; then the site goes on without it, from the source."""


def switch_if_needed(settings: SatelliteSettings, *, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Move the site to the registry that its settings want, if it is on another; may take as long as copying takes.

    Holds the site's lock. For a thread of the agent that nobody waits for: after its start, after each run and each
    change of settings.

    Args:
        settings: the site's own, read anew, without the centre's config.
        sleep: waits between two looks at a registry that starts.

    Returns:
        Whether the site moved.

    Raises:
        ConflictError: a replication is running; the next call may have more luck.
        RemoteError: one of the registries does not answer, or refuses; the next call goes on where this one ended.
        StorageError: the disk has no room for a second copy, or refuses; the site stays where it is.
        InvalidInputError: the settings want a registry that cannot be.
    """
    settings = settings.model_copy(update={"data_dir": settings.data_dir.absolute()})
    site = with_site_config(settings)
    current = load_current(site.data_dir)
    if current is None:
        return False
    wanted = wanted_place(site, current)
    if wanted == current.place:
        remove_left(site, current)
        return False
    store = SatelliteStore(site.data_dir)
    with store.lock():
        refresh_plan(settings)  # what has nothing to lose moves by that alone
        current = load_current(site.data_dir) or current
        if current.place == wanted or current.problem:
            return current.place == wanted
        try:
            adopted = _take_over(settings, site, store, wanted, sleep)
        except LeftRegistryError as error:
            if not _is_given_up(site, error):
                raise
            adopted = None
        look_again(store)  # first: a look too many does no harm, one too few leaves a hole
        _move(site, wanted, adopted)
        before = _pid_of_registry(site)
        refresh_plan(settings)
        _wait_until_it_serves(site, before, sleep)
    return True


def _take_over(
    settings: SatelliteSettings,
    site: SatelliteSettings,
    store: SatelliteStore,
    wanted: Place,
    sleep: Callable[[float], None],
) -> Adopted:
    current = _begin(site, wanted)
    _LOG.info("taking over from=%s to=%s", _shown(current.place), _shown(wanted))
    refresh_plan(settings)
    if problem := registry_problem(site.data_dir):
        raise InvalidInputError(problem)
    options = AdoptionOptions(
        is_whole=current.place.is_managed,
        is_shared=not wanted.is_managed,
        platforms=site.replication_options().platforms,
        workers=site.image_workers,
        disk=DiskGuard(Path(wanted.root), site.disk_reserve_bytes) if wanted.is_managed else None,
        journal=_journal(site, wanted),
    )
    with ExitStack() as stack:
        old = stack.enter_context(_open((load_current(site.data_dir) or current).access))
        check_answers(old, store)
        _note_answer(site)
        new = stack.enter_context(_open(_access_to_next(site, current)))
        if wanted.is_managed:
            _wait_for(new, sleep)
        stack.enter_context(saying_how_far(_journal(site, wanted)))
        adopted = adopt(old, new, store, options)
    _LOG.info(
        "taken over images=%d bytes=%d left_behind=%d",
        adopted.images,
        adopted.bytes_copied,
        len(adopted.left_behind),
    )
    return adopted


@contextmanager
def saying_how_far(journal: AdoptionJournal, every_seconds: float = _SAY_SECONDS) -> Iterator[None]:
    """Log now and then how far a copy is that may take hours."""
    ended = threading.Event()

    def say() -> None:
        while not ended.wait(every_seconds):
            with suppress(StorageError):  # who writes it says so
                _LOG.info("still taking over tags=%d", len(journal.noted()))

    threading.Thread(target=say, name="how-far", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _begin(site: SatelliteSettings, wanted: Place) -> Current:
    """Note that content goes to another place; one that was left before begins empty: it may hold what was deleted."""
    with CHANGING:
        current = load_current(site.data_dir)
        if current is None:  # pragma: no cover  (somebody removed it just now)
            raise RemoteError("the record of this site's registry is gone", retryable=True)
        if current.next is None and any(left.root == wanted.root for left in current.left):
            if is_ours(site, wanted.root):
                remove_root(Path(wanted.root))
            else:
                _LOG.warning("taking over into a root that is not empty root=%s", wanted.root)
        left = tuple(one for one in current.left if one.root != wanted.root)
        # Another port each time: nobody knows who took the one of before a kill.
        port = free_port() if wanted.is_managed else 0
        current = replace(current, next=wanted, next_port=port, left=left)
        save_current(site.data_dir, current)
    return current


def _journal(site: SatelliteSettings, wanted: Place) -> AdoptionJournal:
    mark = hashlib.sha256(_shown(wanted).encode()).hexdigest()[:12]
    return AdoptionJournal(registry_folder(site.data_dir) / f"adopted-{mark}.jsonl")


def _note_answer(site: SatelliteSettings) -> None:
    """Forget that the registry that holds the content was away: whatever fails now, it is not given up for that."""
    with CHANGING:
        current = load_current(site.data_dir)
        if current is not None:
            save_current(site.data_dir, replace(current, unreachable_since=None))


def _move(site: SatelliteSettings, wanted: Place, adopted: Adopted | None) -> None:
    with CHANGING:
        current = load_current(site.data_dir)
        if current is None:  # pragma: no cover  (as above)
            raise RemoteError("the record of this site's registry is gone", retryable=True)
        # The settings may have changed, and been followed, while this was copied.
        left = tuple(one for one in current.left if one.root != wanted.root)
        if adopted and not adopted.left_behind:
            left = also_left(left, current.place)
            _LOG.info("moved from=%s to=%s", _shown(current.place), _shown(wanted))
        else:
            _LOG.warning("moved from=%s to=%s; what is left there stays", _shown(current.place), _shown(wanted))
        access = current.access if wanted.is_managed else access_of(site)
        moved = replace(current, place=wanted, access=access, next=None, next_port=0, left=left, unreachable_since=None)
        save_current(site.data_dir, moved)
    _journal(site, wanted).forget()


def _is_given_up(site: SatelliteSettings, error: LeftRegistryError) -> bool:
    """Tell whether the registry that holds the content has been away for so long that the site goes on without it."""
    with CHANGING:
        current = load_current(site.data_dir)
        if current is None:
            return False
        since = current.unreachable_since or utc_now()
        save_current(site.data_dir, replace(current, unreachable_since=since))
    if utc_now() - since < _GIVE_UP:
        return False
    _LOG.error("not taken over, its content comes from the source again registry=%s reason=%s", current.place, error)
    return True


def _access_to_next(site: SatelliteSettings, current: Current) -> Access:
    if current.next and current.next.is_managed:
        return Access(f"http://{LOOPBACK}:{current.next_port}", writer(site.data_dir))
    return access_of(site)


def _open(access: Access) -> HttpRegistry:
    return HttpRegistry(access.url, credentials=access.credentials, verify=access.ca or True)


def _wait_for(registry: HttpRegistry, sleep: Callable[[float], None]) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            registry.repository_list()
        except RemoteError as error:
            if (error.status is not None and not error.retryable) or time.monotonic() >= until:
                raise
        else:
            return
        sleep(_POLL_SECONDS)


def _pid_of_registry(site: SatelliteSettings) -> int:
    return next((seen.pid for seen in read_sightings(site.data_dir) if seen.name == REGISTRY), 0)


def _wait_until_it_serves(site: SatelliteSettings, before: int, sleep: Callable[[float], None]) -> None:
    """Let the next run find the new registry; if it does not come up, that is the supervisor's to mend."""
    current = load_current(site.data_dir)
    if current is None or not current.place.is_managed:
        return
    until = time.monotonic() + _START_SECONDS
    while _pid_of_registry(site) in {0, before} and time.monotonic() < until:
        sleep(_POLL_SECONDS)  # the one of before may still answer at its address
    with _open(current.access) as registry:
        try:
            _wait_for(registry, sleep)
        except HarborSatelliteError as error:
            _LOG.warning("registry does not answer after the move url=%s reason=%s", current.access.url, error)


def _shown(place: Place) -> str:
    return f"{place.kind}:{place.root or place.url}"
