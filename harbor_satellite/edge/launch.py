"""How ``edge run`` starts: checks what can be checked while somebody looks, then becomes the supervisor.

The process stays the same one, so whoever started it (systemd, a container, a shell) has the supervisor as its child.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from harbor_satellite.edge.notices import LOG_LEVEL_VARIABLE
from harbor_satellite.edge.registry_service import make_services
from harbor_satellite.edge.services import read_plan, write_plan
from harbor_satellite.errors import InvalidInputError, StorageError
from harbor_satellite.satellite.machine_key import check_encryption
from harbor_satellite.settings import SatelliteSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOG = logging.getLogger(__name__)
_LOCK_FILE: Final = ".supervisor.lock"
_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600
# What is installed comes last: nothing there can stand in for a module of the standard library.
_PROGRAM: Final = (
    "import sys; sys.path.append(sys.argv[1]); from harbor_satellite.edge.supervisor import main; main(sys.argv[2:])"
)


def run_site(settings: SatelliteSettings, given: Mapping[str, str]) -> NoReturn:
    """Make the folder and the first plan, and become the supervisor.

    Args:
        settings: the site's, with what the command line gave.
        given: that alone, as variables: the agent reads all others itself, anew, when they change.

    Raises:
        InvalidInputError: the folder is not for this user, another ``edge run`` is at work in it, or the local
            registry cannot be run as the settings say.
        StorageError: the disk refuses, or is read-only, and there is no plan from before.
    """
    folder = settings.data_dir.absolute()
    _make_folder(folder)
    lock = _lock(folder)
    _make_plan(settings, folder)
    _become_supervisor(folder, lock, given)


def run_as_before(reason: str, given: Mapping[str, str]) -> None:
    """Become the supervisor of the plan from before; return if there is none, or it may be in another folder.

    A machine that starts again with a mistake in its settings serves what it has: the agent, which waits until they
    are right, says what is wrong.

    Args:
        reason: what is wrong with the settings.
        given: as for ``run_site``.

    Raises:
        InvalidInputError: the folder is not for this user, or another ``edge run`` is at work in it.
    """
    default: Path = SatelliteSettings.model_fields["data_dir"].default
    folder = Path(os.environ.get("HARBOR_SATELLITE_DATA_DIR") or default).absolute()
    if not _has_plan(folder):
        return
    lock = _lock(folder)
    _LOG.error("the settings are wrong, the services run by the plan from before reason=%s", reason)
    _become_supervisor(folder, lock, given)


def check_settings(settings: SatelliteSettings) -> None:
    """Do nothing if a site can be run by these settings.

    Raises:
        InvalidInputError: nobody said where Ground Control is, or credentials shall be encrypted and the package for
            it is not installed.
    """
    _check_ground_control(settings)
    if settings.is_encrypted:
        check_encryption()


def _become_supervisor(folder: Path, lock: int, given: Mapping[str, str]) -> NoReturn:
    os.set_inheritable(lock, True)
    sys.stdout.flush()
    sys.stderr.flush()
    argv = supervisor_argv(folder, lock)
    level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
    os.execve(argv[0], argv, {**os.environ, LOG_LEVEL_VARIABLE: level, **given})  # noqa: S606  (no shell is the point)


def supervisor_argv(folder: Path, lock: int) -> list[str]:
    """Return the supervisor's command line: without site packages, and deaf to variables that steer Python.

    Args:
        folder: the satellite's.
        lock: descriptor of the folder's lock; -1: none is held.
    """
    root = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, root, str(folder), str(lock)]


def _check_ground_control(settings: SatelliteSettings) -> None:
    """Raise unless somebody said, or may still say, where this site registers."""
    paths = (settings.data_dir / "registration.json", settings.registration_file)
    if not settings.ground_control_url and not any(map(_may_exist, paths)):
        raise InvalidInputError(
            "no Ground Control: give --ground-control or HARBOR_SATELLITE_GROUND_CONTROL_URL, "
            f"or drop {settings.registration_file}"
        )


def _may_exist(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # not ours to look at: whoever reads it says so
        return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        if folder.stat().st_mode & ~_PRIVATE_FOLDER & 0o777:
            folder.chmod(_PRIVATE_FOLDER)
    except OSError as error:
        raise InvalidInputError(
            f"HARBOR_SATELLITE_DATA_DIR={folder}: no folder of user {os.geteuid()}: {error.strerror}"
        ) from error


def _lock(folder: Path) -> int:
    """Take the folder for this process and what it becomes; the lock goes when that dies, whatever ends it."""
    try:
        handle = _open_lock(folder / _LOCK_FILE)
    except OSError as error:
        advice = f"; if root once ran it there: chown -R USER {folder}" if isinstance(error, PermissionError) else ""
        raise InvalidInputError(
            f"HARBOR_SATELLITE_DATA_DIR={folder}: not writable for user {os.geteuid()}: {error.strerror}{advice}"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise InvalidInputError(f"another `edge run` is at work in {folder}") from error
    return handle


def _open_lock(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, _PRIVATE_FILE)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    # An error of the disk has made it read-only: what is there is served, if it was ever served. A lock takes no more
    # than reading.
    try:
        handle = os.open(path, os.O_RDONLY | flags)
    except FileNotFoundError as error:
        raise StorageError(f"{path.parent} is on a read-only disk, and no site was ever run there") from error
    _LOG.error("the disk is read-only: what is there is served, and nothing new comes folder=%s", path.parent)
    return handle


def _make_plan(settings: SatelliteSettings, folder: Path) -> None:
    """Write the plan; a full disk is no reason not to serve what is there, so then the one from before holds."""
    try:
        write_plan(folder, make_services(settings))
    except (StorageError, OSError) as error:
        if _has_plan(folder):
            _LOG.warning("the services run by the plan from before reason=%s", error)
            return
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write the plan of services in {folder}: {error.strerror}") from error


def _has_plan(folder: Path) -> bool:
    try:
        return bool(read_plan(folder).services)
    except (OSError, ValueError):
        return False
