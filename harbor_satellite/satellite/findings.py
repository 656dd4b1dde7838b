"""What an audit found, as values, and the file in which the last audit is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.desired import LocalTag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.satellite.store import SatelliteStore

_FILE: Final = "audit.json"
_KEPT_FINDINGS: Final = 1000
"""Findings that the file holds; a disk that lost more is described well enough by so many."""


class Damage(StrEnum):
    """What is wrong with content at the site."""

    MISSING = "missing"
    WRONG_SIZE = "wrong size"
    """Truncated, empty or too long."""
    WRONG_BYTES = "wrong bytes"
    """As long as it should be, but something else."""
    UNREADABLE = "unreadable"
    """The registry has it and fails to give it."""
    TAG_GONE = "tag gone"
    TAG_MOVED = "tag moved"
    """By somebody at the site: it names something that the satellite never put there."""


Subject = Literal["manifest", "blob", "tag"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One manifest, blob or tag that is not what it should be."""

    subject: Subject
    damage: Damage
    digest: Digest
    """Of the content; for a tag: what it should name."""
    size: int
    """What it should have, in bytes; 0 where nothing says."""
    repositories: tuple[str, ...]
    """Where it is damaged, sorted."""
    images: tuple[LocalTag, ...]
    """What cannot be pulled, or not whole, because of it; sorted."""
    is_healed: bool = False
    note: str = ""
    """How it was healed, or why it was not."""

    def healed(self, how: str) -> Finding:
        """Return the finding as healed."""
        return replace(self, is_healed=True, note=how)

    def left(self, why: str) -> Finding:
        """Return the finding as not healed."""
        return replace(self, is_healed=False, note=why)

    def row(self) -> dict[str, object]:
        """Return the finding as a table's row."""
        return {
            "healed": self.is_healed,
            "damage": f"{self.subject} {self.damage}" if self.subject != "tag" else str(self.damage),
            "digest": str(self.digest),
            "repositories": ", ".join(self.repositories),
            "images": ", ".join(map(str, self.images)),
            "note": self.note,
        }

    def __str__(self) -> str:
        where = ", ".join(f"{repository}@{self.digest}" for repository in self.repositories)
        if self.subject == "tag":
            return f"{self.damage}: {', '.join(map(str, self.images))} should be {self.digest}"
        return f"{self.subject} {self.damage}: {where}"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What one audit came to."""

    finished_at: datetime
    seconds: float
    manifests_read: int
    blobs_read: int
    blobs_known: int
    """Blobs that the site should hold, each digest once; what was not read now is read by the next audits."""
    bytes_read: int
    """From the local registry."""
    bytes_from_source: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every blob was read in this one audit."""
        return self.blobs_read >= self.blobs_known

    @property
    def damaged(self) -> tuple[Finding, ...]:
        """What is still damaged."""
        return tuple(finding for finding in self.findings if not finding.is_healed)

    def summary(self) -> str:
        """Say it in a line."""
        healed = len(self.findings) - len(self.damaged)
        return (
            f"{self.manifests_read} manifests and {self.blobs_read} of {self.blobs_known} blobs read "
            f"({self.bytes_read} bytes); {len(self.findings)} damaged, {healed} healed "
            f"with {self.bytes_from_source} bytes from the source in {self.seconds:.1f} s"
        )

    def json(self) -> dict[str, object]:
        """Return the report as JSON: for the satellite's folder and for machines."""
        return {
            "finished_at": self.finished_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "manifests_read": self.manifests_read,
            "blobs_read": self.blobs_read,
            "blobs_known": self.blobs_known,
            "bytes_read": self.bytes_read,
            "bytes_from_source": self.bytes_from_source,
            "findings": [_finding_json(finding) for finding in self.findings[:_KEPT_FINDINGS]],
        }


def load_last_audit(store: SatelliteStore) -> AuditReport | None:
    """Return the last audit of this site; None before the first.

    Raises:
        StorageError: the file is damaged.
    """
    return store.parsed(_FILE, _report)


def _report(document: Mapping[str, Any] | None) -> AuditReport | None:
    if document is None:
        return None
    return AuditReport(
        finished_at=datetime.fromisoformat(document["finished_at"]),
        seconds=float(document["seconds"]),
        manifests_read=int(document["manifests_read"]),
        blobs_read=int(document["blobs_read"]),
        blobs_known=int(document["blobs_known"]),
        bytes_read=int(document["bytes_read"]),
        bytes_from_source=int(document["bytes_from_source"]),
        findings=tuple(_finding(item) for item in document["findings"]),
    )


def save_last_audit(store: SatelliteStore, report: AuditReport) -> None:
    """Keep an audit as the last one; what is still damaged comes first."""
    ordered = sorted(report.findings, key=lambda finding: finding.is_healed)
    store.write_document(_FILE, replace(report, findings=tuple(ordered)).json())


def _finding_json(finding: Finding) -> dict[str, object]:
    return {
        "subject": finding.subject,
        "damage": str(finding.damage),
        "digest": str(finding.digest),
        "size": finding.size,
        "repositories": list(finding.repositories),
        "images": [{"repository": name.repository, "tag": name.tag} for name in finding.images],
        "is_healed": finding.is_healed,
        "note": finding.note,
    }


def _finding(item: Mapping[str, Any]) -> Finding:
    return Finding(
        subject=item["subject"],
        damage=Damage(item["damage"]),
        digest=Digest.parse(item["digest"]),
        size=int(item["size"]),
        repositories=tuple(map(str, item["repositories"])),
        images=tuple(LocalTag(name["repository"], name["tag"]) for name in item["images"]),
        is_healed=bool(item["is_healed"]),
        note=str(item["note"]),
    )
