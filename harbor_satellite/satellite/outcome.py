"""What a replication came to, image by image: values for reports, tables and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from harbor_satellite.errors import PausedError, SignatureError
from harbor_satellite.state.plan import Rule

if TYPE_CHECKING:
    from harbor_satellite.errors import HarborSatelliteError
    from harbor_satellite.oci.digest import Digest

Action = Literal["copied", "staged", "kept", "deleted", "paused", "quarantined", "failed"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
_UNDONE: Final[frozenset[Action]] = frozenset({"staged", "paused", "quarantined", "failed"})


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """What became of one image, and why."""

    action: Action
    """``staged``: its content is here, its tag has not moved yet; ``quarantined``: not tried in this run."""
    reference: str
    digest: str
    reason: str
    bytes_copied: int = 0
    """From the source."""
    seconds: float = 0.0
    rule: Rule = Rule.WANTED
    """By which rule it was decided."""
    groups: tuple[str, ...] = ()
    """Who wants it."""

    def row(self) -> dict[str, object]:
        """Return the outcome as a table's row."""
        return {
            "action": self.action,
            "reference": self.reference,
            "rule": str(self.rule),
            "reason": self.reason,
            "groups": ", ".join(self.groups),
            "bytes": self.bytes_copied,
            "seconds": round(self.seconds, 2),
            "digest": self.digest,
        }


def failed_outcome(
    reference: str, digest: Digest, error: HarborSatelliteError, groups: tuple[str, ...] = ()
) -> ImageOutcome:
    """Describe an image that could not be brought, published or deleted."""
    if isinstance(error, PausedError):
        return ImageOutcome("paused", reference, str(digest), str(error), rule=Rule.PAUSED, groups=groups)
    rule = Rule.SIGNATURE if isinstance(error, SignatureError) else Rule.FAILED
    return ImageOutcome("failed", reference, str(digest), f"{type(error).__name__}: {error}", rule=rule, groups=groups)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What one run came to."""

    images: tuple[ImageOutcome, ...]
    state_digest: str
    seconds: float
    bytes_from_source: int
    requests: int
    """To the source."""

    def of(self, action: Action) -> tuple[ImageOutcome, ...]:
        """Return the images with one action."""
        return tuple(image for image in self.images if image.action == action)

    @property
    def is_converged(self) -> bool:
        """Whether the site now is what the state asks for."""
        return not self.undone

    @property
    def undone(self) -> tuple[ImageOutcome, ...]:
        """The images that are not what the state asks for."""
        return tuple(image for image in self.images if image.action in _UNDONE)

    @property
    def is_news(self) -> bool:
        """Whether anything was changed, or failed, in this run."""
        return any(image.action not in {"kept", "quarantined"} for image in self.images)

    def summary(self) -> str:
        """Say it in a line."""
        counts = {action: len(self.of(action)) for action in ACTIONS}
        always = {"copied", "kept", "deleted", "failed"}
        said = ", ".join(f"{count} {action}" for action, count in counts.items() if count or action in always)
        return f"{said}; {self.bytes_from_source} bytes from the source in {self.seconds:.1f} s"
