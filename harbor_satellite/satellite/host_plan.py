"""What is to be done to a host's files for one runtime, or was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harbor_satellite.host_config.merge import unified_diff

if TYPE_CHECKING:
    from harbor_satellite.host_config.rendered import Reload
    from harbor_satellite.satellite.host_tree import Owner


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file, as it is and as it shall be; None: no file."""

    path: str
    now: bytes | None
    then: bytes | None
    owner: Owner
    reload: Reload | None = None

    @property
    def is_change(self) -> bool:
        """Whether anything is to be written."""
        return self.now != self.then

    def diff(self) -> str:
        """Return the change as a unified diff, without values that look like secrets."""
        return unified_diff(
            self.path, *(None if one is None else one.decode(errors="replace") for one in (self.now, self.then))
        )


@dataclass(frozen=True, slots=True)
class RuntimePlan:
    """What is to be done for one runtime, or was done."""

    runtime: str
    changes: tuple[FileChange, ...]
    notes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    """What is to be reloaded; after an ``apply``: what was, or is left to do by hand."""
