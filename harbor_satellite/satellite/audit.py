"""The audit of a site: content is read again through the local registry and held against its digests.

Reading needs no lock and never counts as WAN. What an audit finds is healed by ``healing.py``, under the site's lock.

Every audit reads all manifests, asks for the size of every blob in every repository, and reads the bytes of as many
blobs as its budget allows; the next one goes on behind them. A blob's bytes are read once for all repositories that
share it, in another one each time round: registries keep one file for all (Zot by hard links, CNCF distribution by
design, the embedded one wherever a copy was mounted), and where they do not, each copy has its turn.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import RemoteError, StorageError
from harbor_satellite.satellite.findings import AuditReport, Damage, Finding, load_last_audit
from harbor_satellite.satellite.inventory import BROKEN, roots_of, take_inventory
from harbor_satellite.satellite.replication import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.inventory import BlobUse, Inventory, Root
    from harbor_satellite.satellite.store import SatelliteStore

_LOG = logging.getLogger(__name__)
DEFAULT_BUDGET_BYTES: Final = 2_000_000_000
"""Bytes of blobs that one audit reads: less than a minute of a small disk's time."""
_CURSOR_FILE: Final = "audit-cursor.json"
_SAVE_EVERY_BYTES: Final = 256 * 1024**2
_NOT_FOUND: Final = 404
_TRIES: Final = 2


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """How a site audits."""

    budget_bytes: int | None = DEFAULT_BUDGET_BYTES
    """Bytes of blobs to read at most, but one blob in any case; None: all of them."""
    bytes_per_second: int | None = None
    """How fast blobs are read at most, so that pulls keep the disk; None: as fast as it goes."""
    platforms: tuple[Platform, ...] = ()
    """The site's own choice, for names of which no platforms are on record; empty: all."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far around the blobs the audits of this site have come."""

    after: str = ""
    """The digest read last; blobs are read in the order of their digests, so that new ones find their place."""
    round: int = 0
    """Times that the end was reached."""

    def moved(self, digest: str) -> Cursor:
        """Return the cursor behind a blob; one that is not ahead of it begins another round."""
        return Cursor(digest, self.round + (digest <= self.after))


class Pace:
    """Keeps a reader to a rate; counts what it reads."""

    def __init__(
        self,
        bytes_per_second: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.bytes_read = 0
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._started = clock()

    def count(self, size: int) -> None:
        """Take note of bytes read; wait if they came too soon."""
        self.bytes_read += size
        if self._rate and (ahead := self.bytes_read / self._rate - (self._clock() - self._started)) > 0:
            self._sleep(ahead)


def audit_site(
    target: Registry, store: SatelliteStore, options: AuditOptions = AuditOptions(), pace: Pace | None = None
) -> AuditReport:
    """Read the site's content again and say what is not what it should be; nothing is changed but the cursor.

    What the last audit left damaged is looked at first, whatever the cursor says.

    Args:
        target: the local registry.
        store: the satellite's records, cursor and last audit.
        options: how much to read, how fast.
        pace: in place of the rate of the options.

    Raises:
        RemoteError: the local registry cannot be reached.
        StorageError: a record of the satellite is damaged, or its disk refuses the cursor.
    """
    started = time.monotonic()
    roots = roots_of(store, options.platforms)
    inventory = take_inventory(target, roots)
    pace = pace or Pace(options.bytes_per_second)
    read, findings = _Reader(target, store, inventory, pace).read(options.budget_bytes)
    _LOG.info("audited manifests=%d blobs=%d bytes=%d", inventory.manifests_read, read, pace.bytes_read)
    return AuditReport(
        finished_at=utc_now(),
        seconds=time.monotonic() - started,
        manifests_read=inventory.manifests_read,
        blobs_read=read,
        blobs_known=len(inventory.blobs),
        bytes_read=inventory.bytes_read + pace.bytes_read,
        findings=_lasting((*inventory.findings, *findings), roots, roots_of(store, options.platforms)),
    )


def look_at_blob(target: Registry, repository: str, digest: Digest, size: int, pace: Pace) -> Damage | None:
    """Read one blob of the local registry and say what is wrong with it; None: nothing.

    Raises:
        RemoteError: the registry cannot be reached, or refuses for a reason that is not this blob's.
    """
    damage = look_at_size(target, repository, digest, size)
    for tried in range(1, _TRIES + 1):
        if damage is not None:
            break
        try:
            return _read_blob(target, repository, digest, size, pace)
        except RemoteError as error:
            if error.status == _NOT_FOUND:
                return Damage.MISSING
            if error.status not in (None, BROKEN):
                raise
            # A registry that is gone fails this question too, and so ends the audit; one that answers cannot read.
            damage = look_at_size(target, repository, digest, size)
            if tried == _TRIES:
                return damage or Damage.UNREADABLE
    return damage


def look_at_size(target: Registry, repository: str, digest: Digest, size: int) -> Damage | None:
    """Ask for a blob's size and say what is wrong with it; None: nothing.

    Raises:
        RemoteError: the registry cannot be reached.
    """
    try:
        found = target.blob_head(repository, digest)
    except RemoteError as error:
        if error.status == BROKEN:
            return Damage.UNREADABLE
        raise
    if found is None:
        return Damage.MISSING
    return None if found == size else Damage.WRONG_SIZE


def _read_blob(target: Registry, repository: str, digest: Digest, size: int, pace: Pace) -> Damage | None:
    hasher, counted = digest.hasher(), 0
    with target.blob_get(repository, digest) as stream:
        for chunk in stream:
            hasher.update(chunk)
            counted += len(chunk)
            pace.count(len(chunk))
            if counted > size:
                return Damage.WRONG_SIZE
    if counted != size:
        return Damage.WRONG_SIZE
    return None if hasher.hexdigest() == digest.hex else Damage.WRONG_BYTES


class _Reader:
    """Reads blobs in turn from where the last audit stopped."""

    def __init__(self, target: Registry, store: SatelliteStore, inventory: Inventory, pace: Pace) -> None:
        self._target = target
        self._store = store
        self._blobs = inventory.blobs
        self._pace = pace
        self._cursor = load_cursor(store)

    def read(self, budget_bytes: int | None) -> tuple[int, list[Finding]]:
        """Return how many blobs were read, and what is wrong with any."""
        damaged = self._sizes()
        read, saved_at = 0, 0
        try:
            for digest, is_suspect in self._turn(damaged):
                size = self._blobs[digest].size
                if budget_bytes is not None and read and self._pace.bytes_read + size > budget_bytes:
                    break
                behind = self._cursor if is_suspect else self._cursor.moved(str(digest))
                damaged[digest] = self._look(digest, damaged[digest], behind.round)
                read += 1
                self._cursor = behind
                if self._pace.bytes_read - saved_at >= _SAVE_EVERY_BYTES:
                    saved_at = self._pace.bytes_read
                    save_cursor(self._store, self._cursor)
        finally:
            save_cursor(self._store, self._cursor)
        return read, [_finding(digest, self._blobs[digest], found) for digest, found in damaged.items() if found]

    def _sizes(self) -> dict[Digest, dict[str, Damage]]:
        """Return what the sizes tell about each blob, by repository; what may lawfully be elsewhere is left out."""
        damaged: dict[Digest, dict[str, Damage]] = {}
        for digest, use in self._blobs.items():
            looked = {each: look_at_size(self._target, each, digest, use.size) for each in sorted(use.images)}
            if not use.is_optional or set(looked.values()) != {Damage.MISSING}:
                damaged[digest] = {each: damage for each, damage in looked.items() if damage is not None}
        return damaged

    def _turn(self, known: Collection[Digest]) -> list[tuple[Digest, bool]]:
        """Return blobs in the order of reading: what was damaged last time, then on from the cursor, and around."""
        last = load_last_audit(self._store)
        suspects = {finding.digest for finding in (last.damaged if last else ())} & set(known)
        ordered = sorted(set(known) - suspects, key=str)
        ahead = [digest for digest in ordered if str(digest) > self._cursor.after]
        behind = [digest for digest in ordered if str(digest) <= self._cursor.after]
        turn = [(digest, True) for digest in sorted(suspects, key=str)]
        return turn + [(digest, False) for digest in (*ahead, *behind)]

    def _look(self, digest: Digest, damaged: dict[str, Damage], turn: int) -> dict[str, Damage]:
        use = self._blobs[digest]
        intact = [repository for repository in sorted(use.images) if repository not in damaged]
        if not intact:
            return damaged
        first = intact[turn % len(intact)]
        damage = look_at_blob(self._target, first, digest, use.size, self._pace)
        if damage is None:
            return damaged
        # Who else is hit? If the next copy is bad too, they are one file; else each is looked at.
        others = [repository for repository in intact if repository != first]
        for position, repository in enumerate(others):
            other = look_at_blob(self._target, repository, digest, use.size, self._pace)
            if other is not None and position == 0:
                return damaged | dict.fromkeys(intact, damage)
            damaged = damaged | ({repository: other} if other is not None else {})
        return damaged | {first: damage}


def _lasting(findings: tuple[Finding, ...], before: tuple[Root, ...], after: tuple[Root, ...]) -> tuple[Finding, ...]:
    """Leave out what is missing only because a replication took it away while we read."""
    left = {root.name for root in set(before) - set(after)}
    return tuple(finding for finding in findings if not left.issuperset(finding.images))


def load_cursor(store: SatelliteStore) -> Cursor:
    """Return how far the audits have come; a damaged cursor begins anew, since it costs nothing but reading."""
    try:
        document = store.read_document(_CURSOR_FILE) or {}
        return Cursor(str(document.get("after", "")), int(document.get("round", 0)))
    except (StorageError, TypeError, ValueError) as error:
        _LOG.warning("audit cursor begins anew reason=%s", error)
        return Cursor()


def save_cursor(store: SatelliteStore, cursor: Cursor) -> None:
    """Keep how far the audits have come."""
    store.write_document(_CURSOR_FILE, {"after": cursor.after, "round": cursor.round})


def _finding(digest: Digest, use: BlobUse, damaged: dict[str, Damage]) -> Finding:
    # Copies may be damaged in several ways: bytes that nobody notices are the worst.
    damage = max(damaged.values(), key=lambda kind: (kind is Damage.WRONG_BYTES, kind))
    images = tuple(sorted({name for repository in damaged for name in use.images[repository]}))
    return Finding("blob", damage, digest, use.size, tuple(sorted(damaged)), images)
