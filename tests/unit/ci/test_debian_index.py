import pytest

from ci.debian import EXCLUDED
from ci.debian_index import make_lock, snapshot_time
from ci.errors import UsageError
from ci.platforms import PLATFORMS, SATELLITE

S390X = PLATFORMS[3]


def _stanza(name: str, depends: str = "", more: str = "") -> str:
    return "\n".join(
        [
            f"Package: {name}",
            "Version: 1:2.0-1",
            "Architecture: s390x",
            *([f"Depends: {depends}"] if depends else []),
            *([more] if more else []),
            "Description: one line",
            " Depends: not a field, but what a description says",
            f"Filename: pool/main/x/{name}_2.0-1_s390x.deb",
            "Size: 1000",
            f"SHA256: {'c' * 64}",
        ]
    )


def _available(**changed: str) -> str:
    """What apt would say; `changed` puts other stanzas in place of the named ones."""
    stanzas = {
        "base-files": _stanza("base-files", more="Pre-Depends: awk"),
        "ca-certificates": _stanza("ca-certificates", "openssl (>= 1.1.1), debconf (>= 0.5) | debconf-2.0"),
        "libpython3.13-stdlib": _stanza("libpython3.13-stdlib", "media-types | mime-support, libc6 (>= 2.38), netbase"),
        "python3.13-minimal": _stanza("python3.13-minimal", "libssl3, python3:any"),
        **{f"python3-{each}": _stanza(f"python3-{each}") for each in ("bcrypt", "orjson", "ruamel.yaml.clib", "yaml")},
        "libc6": _stanza("libc6", "libgcc-s1"),
        "libgcc-s1": _stanza("libgcc-s1", "libc6"),
        "libssl3t64": _stanza("libssl3t64", more="Provides: libssl3 (= 3.5)"),
        "media-types": _stanza("media-types"),
        "mawk": _stanza("mawk", more="Provides: awk"),
        "openssl": _stanza("openssl", "perl"),
        "vim": _stanza("vim"),
    }
    return "\n\n".join({**stanzas, **changed}.values()) + "\n"


def test_make_lock_takes_dependencies_and_nothing_else() -> None:
    lock = make_lock(_available(), "20261030T080801Z", SATELLITE, S390X)

    names = {each.name for each in lock.packages}
    assert names == {*lock.roots, "libc6", "libgcc-s1", "libssl3t64", "media-types"}
    assert not names & set(EXCLUDED)
    assert lock.packages[0].path == "pool/main/x/base-files_2.0-1_s390x.deb"


def test_make_lock_of_the_same_index_in_another_order_is_the_same() -> None:
    turned = "\n\n".join(reversed(_available().strip().split("\n\n")))

    assert make_lock(turned, "20261030T080801Z", SATELLITE, S390X) == make_lock(
        _available(), "20261030T080801Z", SATELLITE, S390X
    )


def test_make_lock_without_a_dependency_says_what_and_who_needs_it() -> None:
    available = _available(libc6=_stanza("libc6", "libnew (>= 3) | libnewer"))

    with pytest.raises(UsageError, match="libnew, which libc6 needs, is not available"):
        make_lock(available, "20261030T080801Z", SATELLITE, S390X)


def test_make_lock_of_a_package_without_hash_is_refused() -> None:
    available = _available(libc6=_stanza("libc6").replace("SHA256", "MD5sum"))

    with pytest.raises(UsageError, match="libc6: apt says no path, size or SHA256"):
        make_lock(available, "20261030T080801Z", SATELLITE, S390X)


def test_snapshot_time_is_the_newest_suites() -> None:
    releases = [
        "Suite: stable\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n",
        "Suite: stable-updates\nDate: Fri, 30 Oct 2026 08:08:01 UTC\n",
    ]

    assert snapshot_time(releases) == "20261030T080801Z"


def test_snapshot_time_without_an_index_is_refused() -> None:
    with pytest.raises(UsageError, match="apt-get update has brought no index"):
        snapshot_time([])
