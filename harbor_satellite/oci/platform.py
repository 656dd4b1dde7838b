"""Platforms: ``os/architecture[/variant]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from harbor_satellite.errors import InvalidInputError

_PART: Final = re.compile(r"[a-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """What an image runs on, in the words of image-spec's image index."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``os/architecture[/variant]``.

        Raises:
            InvalidInputError: not two or three lower-case words.
        """
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidInputError(f"not a platform (os/architecture[/variant]): {text[:80]!r}")
        return cls(*parts)

    def covers(self, other: Platform) -> bool:
        """Tell whether a wish for this platform is met by ``other``; no variant means any variant."""
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and (not self.variant or self.variant == other.variant)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
