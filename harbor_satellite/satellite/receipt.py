"""The receipt of a site: what it holds and follows, to be carried to where a bundle is made for it. Pure.

It is only ever a hint of what may be left out of a bundle: what it does not name is carried once more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.oci.reference import check_repository
from harbor_satellite.state.json_values import moment, moment_text, text, values
from harbor_satellite.state.wire import LIST_MAX_LENGTH, AppliedGroup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

RECEIPT_MAX_BYTES: Final = 64 * 1024 * 1024
RECEIPT_MAX_DIGESTS: Final = 500_000
"""Manifests and blobs in one receipt; of a site that holds more, the smallest blobs are left out."""
_FORMAT: Final = "harbor-satellite-receipt-1"


@dataclass(frozen=True, slots=True)
class HeldRepository:
    """What a site holds in one repository."""

    manifests: frozenset[Digest] = frozenset()
    """Whole ones: every child, config and layer is there."""
    sparse: Mapping[Digest, tuple[Platform, ...]] = field(default_factory=dict)
    """Indexes of which some platforms are absent, and which; the rest is whole."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a site holds and follows."""

    satellite: str = ""
    """Empty: not registered."""
    state: str = ""
    """Reference of the satellite state that the site was registered with."""
    made_at: datetime | None = None
    groups: tuple[AppliedGroup, ...] = ()
    platforms: tuple[Platform, ...] = ()
    """The site's own choice of platforms; empty: all."""
    repositories: Mapping[str, HeldRepository] = field(default_factory=dict)
    blobs: frozenset[Digest] = frozenset()
    """In any repository."""

    def holds_manifest(self, repository: str, digest: Digest, platforms: tuple[Platform, ...]) -> bool:
        """Tell whether the site holds a manifest with everything below it that a choice of platforms wants."""
        held = self.repositories.get(repository)
        if held is None:
            return False
        absent = held.sparse.get(digest)
        if absent is None or not platforms:
            return digest in held.manifests
        return not any(wanted.covers(platform) for platform in absent for wanted in platforms)


def receipt_json(receipt: Receipt) -> bytes:
    """Write a receipt: one line for each repository, and one for all blobs."""
    repositories = {
        name: {"manifests": sorted(map(str, held.manifests))}
        | (
            {"sparse": {str(digest): sorted(map(str, absent)) for digest, absent in sorted(held.sparse.items())}}
            if held.sparse
            else {}
        )
        for name, held in sorted(receipt.repositories.items())
    }
    head = {
        "format": _FORMAT,
        "satellite": receipt.satellite,
        "state": receipt.state,
        "made_at": moment_text(receipt.made_at),
        "groups": [group.model_dump() for group in receipt.groups[:LIST_MAX_LENGTH]],
        "platforms": sorted(map(str, receipt.platforms)),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    rows = [f" {json.dumps(name)}: {json.dumps(held, separators=(',', ':'))}" for name, held in repositories.items()]
    lines.append('"repositories": {\n' + ",\n".join(rows) + "}")
    lines.append(f'"blobs": {json.dumps(sorted(map(str, receipt.blobs)), separators=(",", ":"))}')
    return ("{" + ",\n".join(lines) + "}\n").encode()


def parse_receipt(raw: bytes, what: str) -> Receipt:
    """Read a receipt.

    Raises:
        InvalidInputError: it is none, too large, or from another version.
    """
    if len(raw) > RECEIPT_MAX_BYTES:
        raise InvalidInputError(f"{what} has more than {RECEIPT_MAX_BYTES} bytes: no receipt is so large")
    try:
        document = json.loads(raw)
        _check_format(document["format"])
        return Receipt(
            satellite=text(document["satellite"]),
            state=text(document["state"]),
            made_at=moment(document["made_at"]),
            groups=tuple(AppliedGroup.model_validate(item) for item in values(document["groups"])),
            platforms=_platforms(document["platforms"]),
            repositories={check_repository(name): _held(item) for name, item in document["repositories"].items()},
            blobs=_digests(document["blobs"]),
        )
    except ValidationError as error:
        raise InvalidInputError(f"{what} is no receipt: {error.error_count()} malformed groups") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, InvalidInputError) as error:
        raise InvalidInputError(f"{what} is no receipt: {error}") from error


def _check_format(given: object) -> None:
    if given != _FORMAT:
        raise InvalidInputError(f"its format is {str(given)[:80]!r}, not {_FORMAT!r}")


def _held(item: Mapping[str, Any]) -> HeldRepository:
    sparse = {Digest.parse(digest): _platforms(absent) for digest, absent in item.get("sparse", {}).items()}
    return HeldRepository(_digests(item["manifests"]), sparse)


def _digests(items: Any) -> frozenset[Digest]:
    return frozenset(Digest.parse(text(item)) for item in values(items))


def _platforms(items: Any) -> tuple[Platform, ...]:
    return tuple(Platform.parse(text(item)) for item in values(items))
