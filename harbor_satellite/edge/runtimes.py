"""The agent's side of configuring container runtimes: it says what the site wants, and sees what became of it.

Root does the work. An agent that is root does it itself; else a unit of systemd that watches the file of the wish.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, StorageError
from harbor_satellite.host_config.rendered import MirrorSettings, certificates
from harbor_satellite.satellite.host import Host
from harbor_satellite.satellite.host_record import digest_of
from harbor_satellite.satellite.host_tree import HostTree
from harbor_satellite.satellite.runtime_wish import RuntimeWish, wish_bytes
from harbor_satellite.satellite.store import write_atomically
from harbor_satellite.state.config import RUNTIME_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harbor_satellite.satellite.host_plan import RuntimePlan
    from harbor_satellite.settings import SatelliteSettings

_LOG = logging.getLogger(__name__)
WISH_FILE: Final = "runtimes.json"
"""In the satellite's folder: what the site wants."""
OUTCOME_FILE: Final = "runtimes-applied.json"
"""In the satellite's folder: what became of it."""
_OUTCOME_MAX_BYTES: Final = 1024**2
_READABLE: Final = 0o644
_RETRY_SECONDS: Final = 3600.0
"""A runtime that does not take its files is not restarted more often than that for them."""
_WAITING: Final = "waits for harbor-satellite-runtime.service; by hand: `sudo harbor-satellite edge runtime apply`"


@dataclass(frozen=True, slots=True)
class RuntimeOutcome:
    """What became of one runtime."""

    name: str
    applied_at: str = ""
    """ISO 8601; empty: it is not configured."""
    problem: str = ""
    notes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    """Path → digest of what we wrote."""

    def json(self) -> dict[str, Any]:
        """Return it for the file of outcomes."""
        return {
            "applied_at": self.applied_at or None,
            "problem": self.problem,
            "notes": list(self.notes),
            "actions": list(self.actions),
            "files": self.files,
        }


def site_mirrors(settings: SatelliteSettings) -> MirrorSettings:
    """Return which registries the local one stands in for.

    Args:
        settings: the site's, with the centre's config and the local registry in them.

    Raises:
        InvalidInputError: a host or the URL is wrong, or the CA cannot be read.
    """
    url = settings.local_registry_url.rstrip("/")
    ca = settings.local_registry_ca if url.startswith("https://") else None
    try:
        pem = certificates(ca.read_text(encoding="utf-8")) if ca else ""
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read the CA of the local registry {ca}: {error}") from error
    return MirrorSettings(
        url,
        settings.mirrored_registries,
        is_fallback=settings.runtime_fallback,
        ca=pem,
        needs_user=not settings.registry_anonymous_read,
    )


def follow(settings: SatelliteSettings) -> tuple[RuntimeOutcome, ...]:
    """Let the host's runtimes be as the settings say; to be called now and then, and when they may have changed.

    Args:
        settings: the site's, with the centre's config and the local registry in them.

    Returns:
        What is known of each runtime. A problem is in there, and in the log; none is raised.
    """
    try:
        return _follow(settings)
    except HarborSatelliteError as error:
        outcomes = tuple(_failed(name, error) for name in settings.runtimes)
        if read_outcomes(settings.data_dir) != {outcome.name: outcome for outcome in outcomes}:
            with contextlib.suppress(StorageError):
                save_outcomes(settings.data_dir, outcomes, "")
        return outcomes


def _follow(settings: SatelliteSettings) -> tuple[RuntimeOutcome, ...]:
    unknown = [name for name in settings.runtimes if name not in RUNTIME_NAMES]
    if unknown:
        raise InvalidInputError(f"no container runtime {unknown[0][:100]!r}: known are {', '.join(RUNTIME_NAMES)}")
    wish = RuntimeWish(tuple(dict.fromkeys(settings.runtimes)), site_mirrors(settings))
    path, raw = settings.data_dir / WISH_FILE, wish_bytes(wish)
    held = _read(path)
    if not wish.runtimes and held is None:
        return ()
    known = read_outcomes(settings.data_dir)
    drifted = {name: _drift(outcome, settings.host_root) for name, outcome in known.items() if not outcome.problem}
    # An answer to an earlier wish may come after a later one was written, and the unit does not wake for that one.
    is_answered = _answered(settings.data_dir) == digest_of(raw)
    is_same = held == raw and is_answered and not any(drifted.values()) and set(wish.runtimes) <= set(known)
    if is_same and not _is_retry_due(settings.data_dir, known.values()):
        return tuple(known.values())
    if os.geteuid() == 0 and os.access(settings.host_root / "etc", os.W_OK):
        write_atomically(path, raw)
        return grant(wish, Host(settings.host_root), settings.data_dir)
    waiting = tuple(_waiting(name, known.get(name), drifted.get(name, "")) for name in wish.runtimes or known)
    save_outcomes(settings.data_dir, waiting, digest_of(raw))  # before the wish: root's answer comes after it
    write_atomically(path, raw)  # also where it is the same: that wakes the unit
    return waiting


def _is_retry_due(folder: Path, known: Iterable[RuntimeOutcome]) -> bool:
    """Tell whether what stood in the way was so long ago that it may be gone: a runtime is installed by now."""
    try:
        age = time.time() - (folder / OUTCOME_FILE).stat().st_mtime
    except OSError:
        return False
    return any(outcome.problem for outcome in known) and not 0 <= age < _RETRY_SECONDS


def _waiting(name: str, known: RuntimeOutcome | None, drifted: str) -> RuntimeOutcome:
    problem = f"{drifted} was changed since; {_WAITING}" if drifted else _WAITING
    return RuntimeOutcome(name, known.applied_at if known else "", problem)


def grant(wish: RuntimeWish, host: Host, folder: Path) -> tuple[RuntimeOutcome, ...]:
    """Configure the runtimes of a wish, undo what an earlier one had configured, and leave word of it.

    Args:
        wish: checked.
        host: whose runtimes.
        folder: the satellite's, where the outcomes go.

    Raises:
        StorageError: the outcomes cannot be written, or the host's record is damaged.
    """
    outcomes = [_grant_one(host, name, wish.mirrors) for name in wish.runtimes]
    for name in (name for name, by in host.configured().items() if by == "site" and name not in wish.runtimes):
        try:
            host.undo(name)
            _LOG.info("container runtime left runtime=%s", name)
        except HarborSatelliteError as error:
            outcomes.append(_failed(name, error))
    save_outcomes(folder, tuple(outcomes), digest_of(wish_bytes(wish)))
    return tuple(outcomes)


def outcome_of(host: Host, plan: RuntimePlan) -> RuntimeOutcome:
    """Return the outcome of a plan that was carried out."""
    files = {path: digests[-1] for path, digests in host.written(plan.runtime).items()}
    return RuntimeOutcome(
        plan.runtime, datetime.now(UTC).isoformat(timespec="seconds"), "", plan.notes, plan.actions, files
    )


def read_outcomes(folder: Path) -> dict[str, RuntimeOutcome]:
    """Return what is known of each runtime; nothing if the file is missing or damaged."""
    try:
        document = json.loads(_read(folder / OUTCOME_FILE) or b"{}")
        return {
            name: RuntimeOutcome(
                name,
                item["applied_at"] or "",
                item["problem"],
                tuple(item["notes"]),
                tuple(item["actions"]),
                dict(item["files"]),
            )
            for name, item in document.get("runtimes", {}).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def save_outcomes(folder: Path, outcomes: tuple[RuntimeOutcome, ...], wish: str | None = None) -> None:
    """Leave word of what became of the runtimes, for the status page.

    Args:
        folder: the satellite's.
        outcomes: all of them.
        wish: digest of the wish that they answer; None: of the same as those before.

    Raises:
        StorageError: the disk is full, read-only or refuses.
    """
    document = {
        "wish": _answered(folder) if wish is None else wish,
        "runtimes": {outcome.name: outcome.json() for outcome in outcomes},
    }
    write_atomically(folder / OUTCOME_FILE, json.dumps(document, indent=1).encode(), _READABLE)


def _answered(folder: Path) -> str:
    """Return the digest of the wish that was answered last; empty: none, as far as is known."""
    try:
        return str(json.loads(_read(folder / OUTCOME_FILE) or b"{}")["wish"])
    except (ValueError, KeyError, TypeError):
        return ""


def _grant_one(host: Host, name: str, mirrors: MirrorSettings) -> RuntimeOutcome:
    try:
        if name not in host.installed():
            return RuntimeOutcome(name, problem=f"there is no {name} on this machine")
        plan = host.apply(name, mirrors, by="site")
        return outcome_of(host, plan)
    except HarborSatelliteError as error:
        return _failed(name, error)


def _failed(name: str, error: HarborSatelliteError) -> RuntimeOutcome:
    first_line = str(error).partition("\n")[0]  # a diff may follow, which is not for everybody's eyes
    _LOG.warning("container runtime not configured runtime=%s reason=%s", name, first_line)
    return RuntimeOutcome(name, problem=first_line)


def _drift(outcome: RuntimeOutcome, root: Path) -> str:
    """Return a file that is not as we wrote it; empty: none, as far as we may look."""
    tree = HostTree(root)
    for path, digest in outcome.files.items():
        try:
            content = tree.read_bytes(path)
        except StorageError:
            continue
        if content is None or digest_of(content) != digest:
            return path
    return ""


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_OUTCOME_MAX_BYTES)
    except OSError:
        return None
