import re
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ci.debian import (
    DebianLock,
    DebianPackage,
    debian_lock_text,
    excluded,
    lock_name,
    parse_debian_lock,
    python_packages,
    roots,
)
from ci.errors import UsageError
from ci.locks import LOCK_OF, parse_lock
from ci.platforms import PLATFORMS, PLATFORMS_OF, SATELLITE, Platform, marker_environment

ROOT = Path(__file__).parents[3]
BUILT = [
    pytest.param(image, each, id=f"{image} {each.slug}") for image, those in PLATFORMS_OF.items() for each in those
]
ZLIB = DebianPackage("zlib1g", "1:1.3", "s390x", "pool/main/z/zlib/zlib1g_1.3_s390x.deb", 86876, "a" * 64)
CERTIFICATES = DebianPackage(
    "ca-certificates", "2025+deb13u1", "all", "pool/updates/main/c/ca-certificates_2025_all.deb", 160720, "b" * 64
)
LOCK = DebianLock("20261030T080801Z", "s390x", ("ca-certificates",), (CERTIFICATES, ZLIB))
TEXT = debian_lock_text(LOCK)


def test_debian_lock_written_and_read_is_the_same() -> None:
    assert parse_debian_lock(TEXT) == LOCK


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("snapshot: 20261030T080801Z\n", "", "its header has to say", id="no snapshot"),
        pytest.param("20261030T080801Z", "yesterday", "its header has to say", id="snapshot of another form"),
        pytest.param("sha256:" + "a" * 64, "sha256:aa", "line 7: not `name version", id="short hash"),
        pytest.param("pool/main/z/", "pool/main/../", "line 7: not `name version", id="path upwards"),
        pytest.param("pool/main/z/", "https://example.org/", "line 7: not `name version", id="an address"),
        pytest.param("1:1.3 s390x", "1:1.3 amd64", "for s390x: zlib1g is for amd64", id="other architecture"),
        pytest.param("zlib1g 1", "aaa 1", "not in order", id="out of order"),
        pytest.param("zlib1g 1", "ca-certificates 1", "one is there twice", id="twice"),
        pytest.param("roots: ", "roots: python3 ", "python3 asked for, but not there", id="root missing"),
    ],
)
def test_parse_debian_lock_that_is_none_says_reason(old: str, new: str, message: str) -> None:
    text = TEXT.replace(old, new)

    with pytest.raises(UsageError, match=message):
        parse_debian_lock(text)


def test_package_of_a_security_update_is_in_the_other_archive() -> None:
    assert (ZLIB.archive, CERTIFICATES.archive) == ("debian", "debian-security")
    assert LOCK.snapshot_url(CERTIFICATES) == (
        "https://snapshot.debian.org/archive/debian-security/20261030T080801Z/"
        "pool/updates/main/c/ca-certificates_2025_all.deb"
    )
    assert ZLIB.file_name == "zlib1g_1.3_s390x.deb"


@pytest.mark.parametrize(("image", "platform"), BUILT)
def test_lock_in_the_repository_is_what_the_image_asks_for(image: str, platform: Platform) -> None:
    lock = parse_debian_lock((ROOT / "ci" / "locks" / lock_name(image, platform)).read_text())

    names = {each.name for each in lock.packages}
    assert lock.architecture == platform.debian
    assert lock.roots == roots(image, platform)
    assert {"libc6", "libssl3t64", "python3.13-minimal"} <= names
    # No shell, no package manager, no compiler: nothing of them may come in by a dependency.
    assert not names & {*excluded(image), "bash", "dash", "busybox", "perl-base", "dpkg", "apt", "coreutils", "gcc-14"}


def test_locks_in_the_repository_are_those_of_the_images_and_no_others() -> None:
    wanted = {lock_name(image, each) for image, those in PLATFORMS_OF.items() for each in those}

    assert {each.name for each in (ROOT / "ci" / "locks").iterdir()} == wanted


@pytest.mark.parametrize("platform", [pytest.param(each, id=each.slug) for each in PLATFORMS])
def test_python_package_of_debian_satisfies_all_that_need_it(platform: Platform) -> None:
    given = python_packages(SATELLITE, platform)
    lock = parse_debian_lock((ROOT / "ci" / "locks" / lock_name(SATELLITE, platform)).read_text())
    debian = {each.name: _python_version(each) for each in lock.packages}
    locked = {each.name for each in parse_lock((ROOT / LOCK_OF[SATELLITE]).read_text())}
    needed = _requirements({*locked, "prefect", "harbor-satellite"}, platform)

    unsatisfied = [
        f"{requirement} (Debian has {debian[package]})"
        for name, package in given.items()
        for requirement in needed[name]
        if not requirement.specifier.contains(debian[package])
    ]

    assert not unsatisfied
    assert all(needed[name] for name in given), "what Debian gives is needed by something"


def _requirements(names: set[str], platform: Platform) -> dict[str, list[Requirement]]:
    """What these distributions, as this environment has them installed, need: name → requirements on it."""
    found: dict[str, list[Requirement]] = {name: [] for name in names}
    for distribution in distributions():
        if canonicalize_name(distribution.name) not in names:
            continue
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(marker_environment(platform)):
                found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def _python_version(package: DebianPackage) -> str:
    """The version that a Python package of Debian says of itself."""
    upstream = re.sub(r"^\d+:|\+ds\d*|-[^-]+$", "", package.version)
    if package.name == "python3-regex":  # Debian numbers its dates so that a real version could come after them
        return re.sub(r"0\.1\.(\d{4})(\d\d)(\d\d)", r"\1.\2.\3", upstream)
    return upstream
