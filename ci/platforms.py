"""The table of platforms: how each is called by OCI, Debian, Python and QEMU, and what exists for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ci.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, order=True)
class Platform:
    """A platform that images are built for."""

    name: str
    """As OCI and Go call it: `linux/ppc64le`."""
    debian: str
    """As Debian calls the architecture: `ppc64el`."""
    machine: str
    """As `platform_machine` in a lock's markers and a wheel's tag call it: `ppc64le`."""
    glibc: tuple[int, int] = (2, 41)
    """Newest glibc that a wheel may want: trixie's."""
    qemu_cpu: str = ""
    """The CPU that emulation shall show; empty: QEMU's default."""
    has_zot: bool = False
    """Whether Zot's official image exists for it; else the embedded registry serves."""

    @property
    def slug(self) -> str:
        """For file names: `linux-ppc64le`."""
        return self.name.replace("/", "-")


PLATFORMS: Final = (
    Platform("linux/amd64", "amd64", "x86_64", has_zot=True),
    # QEMU computes pointer authentication in full unless the CPU has none: eight times slower.
    Platform("linux/arm64", "arm64", "aarch64", qemu_cpu="cortex-a72", has_zot=True),
    Platform("linux/ppc64le", "ppc64el", "ppc64le"),
    Platform("linux/s390x", "s390x", "s390x"),
    Platform("linux/386", "i386", "i686"),
    Platform("linux/riscv64", "riscv64", "riscv64"),
)

SATELLITE: Final = "satellite"
GROUND_CONTROL: Final = "ground-control"

PLATFORMS_OF: Final = {SATELLITE: PLATFORMS, GROUND_CONTROL: PLATFORMS[:2]}
"""Which image is built for which platforms."""


def parse_platforms(names: Sequence[str], image: str) -> tuple[Platform, ...]:
    """Return the platforms of these names that an image is built for, in the table's order.

    Args:
        names: such as `linux/arm64`, several in one by commas; none of them: all.
        image: SATELLITE or GROUND_CONTROL.

    Raises:
        UsageError: a name that is none, or that the image is not built for.
    """
    wanted = {part.strip() for name in names for part in name.split(",") if part.strip()}
    known = {platform.name for platform in PLATFORMS_OF[image]}
    if strange := sorted(wanted - known):
        raise UsageError(f"{image} is not built for {', '.join(strange)}: it is for {', '.join(sorted(known))}")
    return tuple(each for each in PLATFORMS_OF[image] if not wanted or each.name in wanted)
