"""The table of platforms: how each is called by OCI, Debian, Python and QEMU, and what exists for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ci.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, order=True)
class Platform:
    """A platform that images are built for."""

    name: str
    """As OCI and Go call it: `linux/ppc64le`."""
    debian: str
    """As Debian calls the architecture: `ppc64el`."""
    machine: str
    """As `platform_machine` in a lock's markers and a wheel's tag call it: `ppc64le`."""
    elf: int
    """As a program's header calls it, `e_machine` (elf.h)."""
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
    Platform("linux/amd64", "amd64", "x86_64", 62, has_zot=True),
    # QEMU computes pointer authentication in full unless the CPU has none: eight times slower.
    Platform("linux/arm64", "arm64", "aarch64", 183, qemu_cpu="cortex-a72", has_zot=True),
    Platform("linux/ppc64le", "ppc64el", "ppc64le", 21),
    Platform("linux/s390x", "s390x", "s390x", 22),
    Platform("linux/386", "i386", "i686", 3),
    Platform("linux/riscv64", "riscv64", "riscv64", 243),
)

# The images' Python is Debian trixie's.
PYTHON_VERSION: Final = (3, 13)
PYTHON_FULL_VERSION: Final = "3.13.5"
_OLDEST_GLIBC: Final = {"x86_64": 5, "i686": 5}  # else 17: manylinux2014, the first for more than Intel's
_OLD_TAGS: Final = {
    17: ("manylinux2014",),
    12: ("manylinux2010",),
    5: ("manylinux1",),
}


def wheel_tags(platform: Platform) -> tuple[str, ...]:
    """Return the platform tags of wheels that run there, such as `manylinux_2_41_ppc64le`, the best first.

    pip does not conclude from a newer glibc to an older one: each is named (PEP 600), with its old name (PEP 513, 571,
    599). Wheels for any platform need no tag.
    """
    major, newest = platform.glibc
    tags: list[str] = []
    for minor in range(newest, _OLDEST_GLIBC.get(platform.machine, 17) - 1, -1):
        tags.append(f"manylinux_{major}_{minor}_{platform.machine}")
        tags.extend(f"{old}_{platform.machine}" for old in _OLD_TAGS.get(minor, ()))
    return tuple(tags)


def marker_environment(platform: Platform) -> dict[str, str]:
    """Return what a requirement's marker sees on a platform: all of PEP 508, nothing of the builder's."""
    return {
        "implementation_name": "cpython",
        "implementation_version": PYTHON_FULL_VERSION,
        "os_name": "posix",
        "platform_machine": platform.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": PYTHON_FULL_VERSION,
        "python_version": f"{PYTHON_VERSION[0]}.{PYTHON_VERSION[1]}",
        "sys_platform": "linux",
        "extra": "",
    }


SATELLITE: Final = "satellite"
GROUND_CONTROL: Final = "ground-control"

PLATFORMS_OF: Final = {SATELLITE: PLATFORMS, GROUND_CONTROL: PLATFORMS[:2]}
"""Which image is built for which platforms."""


@dataclass(frozen=True)
class Missing:
    """Why an image is not built for a platform: distributions of its lock that nobody offers for it, unbuilt."""

    without_wheel: tuple[str, ...]
    """The package index has no wheel of the locked version for the images' Python and glibc."""
    nowhere: tuple[str, ...]
    """Of these, what Debian does not have either, or not in a version that is wanted."""


NOT_BUILT: Final[dict[str, dict[str, Missing]]] = {
    SATELLITE: {},
    # burner-redis, which Prefect's server needs, is written in Rust. Debian's argon2 is older than what we want.
    GROUND_CONTROL: {
        "linux/ppc64le": Missing(
            ("argon2-cffi-bindings", "asyncpg", "bcrypt", "burner-redis", "orjson", "pyyaml", "ruamel-yaml-clib"),
            ("argon2-cffi-bindings", "burner-redis"),
        ),
        "linux/s390x": Missing(
            (
                "argon2-cffi-bindings",
                "asyncpg",
                "bcrypt",
                "burner-redis",
                "cryptography",
                "markupsafe",
                "orjson",
                "psycopg-binary",
                "ruamel-yaml-clib",
            ),
            ("argon2-cffi-bindings", "burner-redis"),
        ),
        "linux/386": Missing(
            (
                *("argon2-cffi-bindings", "asyncpg", "bcrypt", "burner-redis", "cryptography", "greenlet"),
                *("markupsafe", "psycopg-binary", "pyyaml", "regex"),
            ),
            ("argon2-cffi-bindings", "burner-redis"),
        ),
        "linux/riscv64": Missing(
            ("asyncpg", "bcrypt", "burner-redis", "cffi", "cryptography", "orjson", "pyyaml", "ruamel-yaml-clib"),
            ("burner-redis",),
        ),
    },
}
"""Which image is not built for which platforms, and why; the guide to images shows it."""


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


def choose_platforms(
    images: Sequence[str], names: Sequence[str], *, is_strict: bool
) -> Mapping[str, tuple[Platform, ...]]:
    """Return image → the platforms it will be built for; each image has at least one.

    Args:
        images: those wanted.
        names: see `parse_platforms`.
        is_strict: each image has to be for each platform; else it is built for those that it is for, and left out
            where that is none of them.

    Raises:
        UsageError: an image is not for a platform, or, if it is not strict, none of them is.
    """
    if is_strict or not names:
        return {image: parse_platforms(names, image) for image in images}
    wanted = [part.strip() for name in names for part in name.split(",") if part.strip()]
    known = {platform.name for image in images for platform in PLATFORMS_OF[image]}
    if strange := sorted({*wanted} - known):
        raise UsageError(f"nothing is built for {', '.join(strange)}: images are for {', '.join(sorted(known))}")
    chosen = {image: [each.name for each in PLATFORMS_OF[image] if each.name in wanted] for image in images}
    # Without names all platforms would be meant.
    return {image: parse_platforms(found, image) for image, found in chosen.items() if found or not wanted}
