"""Carrying out what was decided for a runtime: all of its files or none, and a record that a kill cannot confuse."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harbor_satellite.errors import HarborSatelliteError, HostError, StorageError
from harbor_satellite.host_config.docker import CONFIG as DOCKER_CONFIG
from harbor_satellite.satellite.host_plan import FileChange, RuntimePlan
from harbor_satellite.satellite.host_record import HostRecord, RecordStore, WrittenFile, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.host_config.rendered import Reload
    from harbor_satellite.satellite.host_tree import HostTree, Owner

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """A plan, and the record as it is once the plan is carried out."""

    changes: tuple[FileChange, ...]
    record: HostRecord
    reloads: tuple[Reload, ...]
    backups: dict[str, tuple[bytes | None, bytes]]
    """Path → its bytes before us, and ours."""
    notes: tuple[str, ...] = ()


class StepWorker:
    """Carries out steps.

    Args:
        tree: the host's files.
        store: the record, locked by the caller.
        reload: reloads a runtime, given the mirrors that Docker must have afterwards; returns a line about it.
    """

    def __init__(self, tree: HostTree, store: RecordStore, reload: Callable[[Reload, tuple[str, ...]], str]) -> None:
        self._tree = tree
        self._store = store
        self._reload = reload

    def carry_out(self, runtime: str, record: HostRecord, step: Step, *, is_forced: bool) -> RuntimePlan:
        """Write the files of a step, reload, and keep the record.

        Args:
            runtime: its name.
            record: as it is now.
            step: what to do.
            is_forced: what others wrote may be replaced; a copy is kept.

        Raises:
            StorageError: a file cannot be written; those written before are as they were.
            HostError: the runtime did not take its new files; they are as they were.
        """
        for change in step.changes:
            self._tree.sweep(change.path)
        changes = [change for change in step.changes if change.is_change]
        if is_forced:
            self._set_aside(record, changes)
        held = self._held(record, step)
        self._announce(record, step)
        done: list[FileChange] = []
        try:
            for change in changes:
                done.append(change)
                self._put(change.path, change.then, change.owner)
            actions = tuple(self._reload(reload, _docker_mirrors(step)) for reload in step.reloads)
        except (StorageError, HostError) as error:
            self._put_back(record, step, done, error)
            for path, (was, then) in held.items():
                self._store.keep(path, was, then)
            self._store.save(record)
            raise
        gone = {folder for folder in reversed(step.record.folders) if self._is_of_no_use(folder, step.record)}
        folders = tuple(folder for folder in step.record.folders if folder not in gone)
        self._store.save(replace(step.record, folders=folders, pending=()))
        for change in changes:
            _LOG.info("host file changed runtime=%s path=%s", runtime, change.path)
        return RuntimePlan(runtime, step.changes, step.notes, actions)

    def _announce(self, record: HostRecord, step: Step) -> None:
        """Put on disk what is about to be done, so that whoever comes after a kill knows our work from others'."""
        for path, (was, then) in step.backups.items():
            self._store.keep(path, was, then)
        coming = {
            path: replace(file, wrote=tuple(dict.fromkeys((*known.wrote, *file.wrote))))
            if (known := record.files.get(path))
            else file
            for path, file in step.record.files.items()
        }
        pending = tuple((reload.unit, reload.verb) for reload in step.reloads)
        announced = HostRecord({**record.files, **coming}, step.record.folders, record.runtimes, pending)
        if announced != record:
            self._store.save(announced)

    def _held(self, record: HostRecord, step: Step) -> dict[str, tuple[bytes | None, bytes]]:
        """Return the backups that a step replaces, but those that are lost."""
        held = {}
        for path in step.backups:
            if file := record.files.get(path):
                with contextlib.suppress(StorageError):
                    held[path] = self._store.before(file), self._store.after(file)
        return held

    def _put(self, path: str, content: bytes | None, owner: Owner) -> None:
        if content is None:
            self._tree.remove(path)
        else:
            self._tree.write(path, content, owner)

    def _put_back(self, record: HostRecord, step: Step, done: list[FileChange], error: HarborSatelliteError) -> None:
        """Put back, in the other order, what was written before something failed."""
        for change in reversed(done):
            try:
                if self._tree.read_bytes(change.path) != change.now:
                    self._put(change.path, change.now, change.owner)
            except StorageError as second:
                raise StorageError(f"{error}; and {change.path} could not be put back: {second}") from error
        for folder in reversed(step.record.folders):
            if folder not in record.folders:
                self._tree.remove_folder(folder)
        if isinstance(error, HostError):
            for reload in step.reloads:
                try:
                    self._reload(reload, ())
                except HostError as second:
                    _LOG.error("%s: down with its old files, too: %s", reload.unit, second)

    def _is_of_no_use(self, folder: str, record: HostRecord) -> bool:
        if any(path.startswith(f"{folder}/") for path in record.files):
            return False
        return self._tree.remove_folder(folder) or not record.files

    def _set_aside(self, record: HostRecord, changes: list[FileChange]) -> None:
        for change in changes:
            file = record.files.get(change.path)
            if file and change.now is not None and not is_ours(file, change.now):
                place = self._store.set_aside(change.path, change.now)
                _LOG.warning("host file replaced path=%s copy=%s", change.path, place)


def is_ours(file: WrittenFile, now: bytes | None) -> bool:
    """Tell whether a file is as we wrote it, or were about to."""
    return now is not None and digest_of(now) in file.wrote


def _docker_mirrors(step: Step) -> tuple[str, ...]:
    """Return the mirrors that Docker must have once it has read its file."""
    found = next((change.then for change in step.changes if change.path == DOCKER_CONFIG), None)
    mirrors = json.loads(found or b"{}").get("registry-mirrors", ())
    return tuple(str(mirror).rstrip("/") for mirror in mirrors)
