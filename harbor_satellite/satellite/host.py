"""Pointing a host's container runtimes at the local registry, and taking it back bit for bit.

Every file of a runtime is written or none. Whatever is killed whenever, the record knows both what was there before
and what we wrote, so the next ``apply`` or ``undo`` finds each file in one of the two and goes on from there. What
others changed since stays: it is carried over by ``apply``, and ``undo`` asks before it would be lost.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import ConflictError, StorageError
from harbor_satellite.host_config.merge import has_ours, without_ours
from harbor_satellite.host_config.rendered import Reload
from harbor_satellite.host_config.runtimes import RUNTIMES, runtime_named
from harbor_satellite.satellite.host_plan import FileChange, RuntimePlan
from harbor_satellite.satellite.host_record import (
    PATIENCE_SECONDS,
    RECORD_FOLDER,
    HostRecord,
    RecordStore,
    WrittenFile,
    digest_of,
    with_runtime,
)
from harbor_satellite.satellite.host_reload import reload_runtime
from harbor_satellite.satellite.host_steps import Step, StepWorker, is_ours
from harbor_satellite.satellite.host_tree import HostText, HostTree, Owner, text_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harbor_satellite.host_config.rendered import MirrorSettings, RenderedFile

_LOG = logging.getLogger(__name__)
_MINE: Final = -1


class Host:
    """The container runtimes of a host.

    Args:
        root: where the host's ``/`` is seen; another one than ``/`` and nothing is reloaded.
        reload: how a runtime is reloaded, given the mirrors that Docker must have afterwards.
        patience_seconds: so long is waited for another who configures the runtimes.
    """

    def __init__(
        self,
        root: Path,
        reload: Callable[[Reload, tuple[str, ...]], str] = reload_runtime,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._tree = HostTree(root)
        self._store = RecordStore(self._tree.root / RECORD_FOLDER.lstrip("/"), patience_seconds)
        is_own = str(self._tree.root) == "/" or reload is not reload_runtime
        self._worker = StepWorker(self._tree, self._store, reload if is_own else _not_from_here)

    @property
    def folder(self) -> Path:
        """Where the record is."""
        return self._store.folder

    def installed(self) -> tuple[str, ...]:
        """Return the runtimes that this host has."""
        return tuple(
            name for name, runtime in RUNTIMES.items() if any(self._tree.is_there(trace) for trace in runtime.traces)
        )

    def configured(self) -> dict[str, str]:
        """Return the runtimes that were configured, each with who asked for it: ``site`` or ``hand``."""
        return {name: said["by"] for name, said in self._store.load().runtimes.items()}

    def written(self, runtime: str) -> dict[str, tuple[str, ...]]:
        """Return the files that a runtime needs, each with the digests of what we wrote."""
        return {path: file.wrote for path, file in self._store.load().files.items() if runtime in file.runtimes}

    def plan(self, runtime: str, mirrors: MirrorSettings, *, is_forced: bool = False) -> RuntimePlan:
        """Say what ``apply`` would do.

        Raises:
            InvalidInputError: a file cannot be read as what it should be, or rules out mirrors.
            ConflictError: somebody changed lines that we wrote.
            StorageError: a file cannot be read.
        """
        step = self._step(self._store.load(), runtime, mirrors, is_forced=is_forced, by="hand")
        return self._shown(runtime, step)

    def apply(self, runtime: str, mirrors: MirrorSettings, *, by: str = "hand", is_forced: bool = False) -> RuntimePlan:
        """Point a runtime at the local registry.

        Args:
            runtime: its name.
            mirrors: which registries, and how the local one is reached.
            by: who asks: ``site``, for the site's settings, or ``hand``.
            is_forced: replace what somebody changed in lines that we wrote; a copy is kept.

        Raises:
            InvalidInputError: a file cannot be read as what it should be, or rules out mirrors.
            ConflictError: somebody changed lines that we wrote, or configures the runtimes now.
            StorageError: a file cannot be written; those written before are as they were.
            HostError: the runtime did not take its new files; they are as they were.
        """
        with self._store.lock():
            record = self._store.load()
            step = self._step(record, runtime, mirrors, is_forced=is_forced, by=by)
            return self._worker.carry_out(runtime, record, step, is_forced=is_forced)

    def undo(self, runtime: str, *, is_forced: bool = False, is_planned: bool = False) -> RuntimePlan:
        """Put back what was there before us.

        Args:
            runtime: its name.
            is_forced: also where somebody changed a file since; a copy is kept.
            is_planned: only say what would be done.

        Raises:
            ConflictError: a file was changed since, or somebody configures the runtimes now.
            StorageError: a file cannot be written; those written before are as they were.
            HostError: the runtime did not come back; the files are as they were.
        """
        runtime_named(runtime)
        if is_planned:
            return self._shown(runtime, self._undo_step(self._store.load(), runtime, is_forced=is_forced))
        with self._store.lock():
            record = self._store.load()
            step = self._undo_step(record, runtime, is_forced=is_forced)
            return self._worker.carry_out(runtime, record, step, is_forced=is_forced)

    def _step(self, record: HostRecord, runtime: str, mirrors: MirrorSettings, *, is_forced: bool, by: str) -> Step:
        before = {path: self._before(file, is_forced=is_forced) for path, file in record.files.items()}
        rendering = runtime_named(runtime).render(HostText(self._tree, before), mirrors)
        wanted = {file.path: file for file in rendering.files} | self._as_changed(record, runtime, mirrors, before)
        kept = {path: file for path, file in record.files.items() if path not in wanted}
        changes, files, backups, reloads = [], {}, {}, []
        for path, file in wanted.items():
            known, found = record.files.get(path), self._tree.owner(path)
            owner = found or Owner(file.mode, _MINE, _MINE)
            now, then = self._tree.read_bytes(path), file.text.encode()
            was = before.get(path, now)
            changes.append(FileChange(path, now, then, owner, file.reload))
            if was == then:  # it says so without us
                continue
            runtimes = tuple(dict.fromkeys((*(known.runtimes if known else ()), runtime)))
            held = file.reload or (Reload(known.unit, known.verb) if known and known.unit else None)
            files[path] = WrittenFile(
                path,
                runtimes,
                is_new=was is None,
                mode=owner.mode,
                uid=owner.uid,
                gid=owner.gid,
                wrote=(digest_of(then),),
                unit=held.unit if held else "",
                verb=held.verb if held else "",
            )
            backups[path] = was, then
            if file.reload and (now != then or runtime not in record.runtimes):
                reloads.append(file.reload)
        stale = self._without(HostRecord(kept), runtime, before)
        reloads += stale.reloads
        after = replace(record, files={**stale.record.files, **files}, folders=self._folders(record, files))
        return Step(
            (*changes, *stale.changes),
            with_runtime(after, runtime, by, _digest_of(mirrors)),
            _with_pending(reloads, record),
            backups,
            rendering.notes,
        )

    def _as_changed(
        self, record: HostRecord, runtime: str, mirrors: MirrorSettings, before: dict[str, bytes | None]
    ) -> dict[str, RenderedFile]:
        """Return the files that others changed and that say all we want nevertheless: they stay as they are."""
        now = {path: self._tree.read_bytes(path) for path in before}
        changed = {
            path: content
            for path, content in now.items()
            if content not in {None, before[path]} and not is_ours(record.files[path], content)
        }
        if not changed or record.runtimes.get(runtime, {}).get("mirrors") != _digest_of(mirrors):
            return {}
        rendering = runtime_named(runtime).render(HostText(self._tree, {**before, **changed}), mirrors)
        return {file.path: file for file in rendering.files if file.text.encode() == changed.get(file.path)}

    def _undo_step(self, record: HostRecord, runtime: str, *, is_forced: bool) -> Step:
        ours = {path: file for path, file in record.files.items() if file.runtimes == (runtime,)}
        before = {path: self._undone(file, is_forced=is_forced) for path, file in ours.items()}
        step = self._without(record, runtime, before)
        runtimes = {name: said for name, said in record.runtimes.items() if name != runtime}
        return replace(step, record=replace(step.record, runtimes=runtimes, folders=record.folders))

    def _without(self, record: HostRecord, runtime: str, before: dict[str, bytes | None]) -> Step:
        """Take a runtime off its files: those that no other needs go back to what they were."""
        changes, files = [], {}
        for path, file in record.files.items():
            others = tuple(name for name in file.runtimes if name != runtime)
            if others:
                files[path] = replace(file, runtimes=others)
                continue
            reload = Reload(file.unit, file.verb) if file.unit else None
            owner = Owner(file.mode, file.uid, file.gid)
            changes.append(FileChange(path, self._tree.read_bytes(path), before[path], owner, reload))
        reloads = [one.reload for one in changes if one.reload and one.is_change]
        return Step(tuple(changes), replace(record, files=files), _with_pending(reloads, record), {})

    def _undone(self, file: WrittenFile, *, is_forced: bool) -> bytes | None:
        """Return what a file is to be without us: as it was, or as it is if nothing of ours is left in it."""
        before, now = self._backup(file, is_forced=is_forced), self._tree.read_bytes(file.path)
        if is_forced or now == before or is_ours(file, now):
            return before
        ours = self._store.after(file)
        texts = [(content or b"").decode(errors="replace") for content in (before, ours, now)]
        if now is None or has_ours(*texts):
            raise _changed(file.path, ours, now, "`undo --force` puts back what was there before us")
        return now

    def _backup(self, file: WrittenFile, *, is_forced: bool) -> bytes | None:
        """Return what was there before us; by force: what is there, if that is lost."""
        try:
            return self._store.before(file)
        except StorageError:
            if not is_forced:
                raise
            return self._tree.read_bytes(file.path)

    def _before(self, file: WrittenFile, *, is_forced: bool) -> bytes | None:
        """Return what a file would be without us: as it was, with what others changed since."""
        before, now = self._backup(file, is_forced=is_forced), self._tree.read_bytes(file.path)
        if now == before or is_ours(file, now) or is_forced:
            return before
        ours = self._store.after(file)
        texts = [text_of(file.path, content or b"") for content in (before, ours, now)]
        merged = without_ours(*texts)
        if merged is None or now is None:
            raise _changed(file.path, ours, now, "`apply --force` writes ours again, `undo --force` what was before")
        return merged.encode() if merged or before is not None else None

    def _folders(self, record: HostRecord, files: dict[str, WrittenFile]) -> tuple[str, ...]:
        made = [folder for path in files for folder in self._tree.missing_folders(path)]
        return tuple(dict.fromkeys((*record.folders, *made)))

    def _shown(self, runtime: str, step: Step) -> RuntimePlan:
        actions = tuple(f"{reload.verb} {reload.unit}" for reload in step.reloads)
        return RuntimePlan(runtime, step.changes, step.notes, actions)


def _digest_of(mirrors: MirrorSettings) -> str:
    return digest_of(repr(mirrors).encode())


def _with_pending(reloads: list[Reload], record: HostRecord) -> tuple[Reload, ...]:
    """Return what is to be reloaded, with what was left undone when we were killed."""
    return tuple(dict.fromkeys((*(Reload(*one) for one in record.pending), *reloads)))


def _changed(path: str, ours: bytes, now: bytes | None, advice: str) -> ConflictError:
    diff = FileChange(path, ours, now, Owner(0, 0, 0)).diff()
    return ConflictError(f"{path} was changed since we wrote it: {advice}\n{diff}")


def _not_from_here(reload: Reload, _mirrors: tuple[str, ...]) -> str:
    return f"{reload.verb} {reload.unit} on the host yourself: its files are written from elsewhere"
