"""What a replication came to, image by image: values for reports, tables and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harbor_satellite.state.plan import Rule

if TYPE_CHECKING:
    from harbor_satellite.errors import HarborSatelliteError
    from harbor_satellite.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """What became of one image, and why."""

    action: Literal["copied", "kept", "deleted", "failed"]
    reference: str
    digest: str
    reason: str
    bytes_copied: int = 0
    """From the source."""
    seconds: float = 0.0
    rule: Rule = Rule.WANTED
    """By which rule it was decided."""

    def row(self) -> dict[str, object]:
        """Return the outcome as a table's row."""
        return {
            "action": self.action,
            "reference": self.reference,
            "rule": str(self.rule),
            "reason": self.reason,
            "bytes": self.bytes_copied,
            "seconds": round(self.seconds, 2),
            "digest": self.digest,
        }


def failed_outcome(reference: str, digest: Digest, error: HarborSatelliteError) -> ImageOutcome:
    """Describe an image that could not be brought, published or deleted."""
    return ImageOutcome("failed", reference, str(digest), f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What one run came to."""

    images: tuple[ImageOutcome, ...]
    state_digest: str
    seconds: float
    bytes_from_source: int
    requests: int
    """To the source."""

    def of(self, action: str) -> tuple[ImageOutcome, ...]:
        """Return the images with one action."""
        return tuple(image for image in self.images if image.action == action)

    @property
    def is_converged(self) -> bool:
        """Whether the site now is what the state asks for."""
        return not self.of("failed")

    @property
    def is_news(self) -> bool:
        """Whether anything was changed, or failed."""
        return any(image.action != "kept" for image in self.images)

    def summary(self) -> str:
        """Say it in a line."""
        counts = ", ".join(f"{len(self.of(action))} {action}" for action in ("copied", "kept", "deleted", "failed"))
        return f"{counts}; {self.bytes_from_source} bytes from the source in {self.seconds:.1f} s"
