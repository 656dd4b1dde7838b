from pathlib import Path

import pytest

from ci.debian import python_packages
from ci.errors import UsageError
from ci.locks import LOCK_OF, parse_lock
from ci.platforms import (
    GROUND_CONTROL,
    NOT_BUILT,
    PLATFORMS,
    PLATFORMS_OF,
    SATELLITE,
    Platform,
    choose_platforms,
    marker_environment,
    parse_platforms,
    wheel_tags,
)

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guides" / "images.md"
AMD64, ARM64, PPC64LE, S390X, I386, RISCV64 = PLATFORMS


def test_parse_platforms_without_names_returns_all_of_the_image() -> None:
    assert parse_platforms([], SATELLITE) == PLATFORMS
    assert parse_platforms([], GROUND_CONTROL) == (AMD64, ARM64)


def test_parse_platforms_by_commas_returns_them_in_the_tables_order() -> None:
    assert parse_platforms(["linux/riscv64, linux/arm64", "linux/arm64"], SATELLITE) == (ARM64, RISCV64)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        pytest.param(SATELLITE, "linux/arm/v7", id="no platform of ours"),
        pytest.param(GROUND_CONTROL, "linux/s390x", id="not of this image"),
    ],
)
def test_parse_platforms_of_what_is_not_built_says_what_is(image: str, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{image} is not built for {name}: it is for .*linux/amd64"):
        parse_platforms([name], image)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param([], {SATELLITE: PLATFORMS, GROUND_CONTROL: (AMD64, ARM64)}, id="none named"),
        pytest.param(["linux/s390x"], {SATELLITE: (S390X,)}, id="of one image"),
        pytest.param(
            ["linux/s390x,linux/amd64"], {SATELLITE: (AMD64, S390X), GROUND_CONTROL: (AMD64,)}, id="partly of one"
        ),
    ],
)
def test_choose_platforms_image_is_left_out_where_it_is_for_none(
    names: list[str], expected: dict[str, tuple[Platform, ...]]
) -> None:
    assert choose_platforms([SATELLITE, GROUND_CONTROL], names, is_strict=False) == expected


def test_choose_platforms_image_that_was_wanted_is_not_left_out() -> None:
    with pytest.raises(UsageError, match="ground-control is not built for linux/s390x"):
        choose_platforms([SATELLITE, GROUND_CONTROL], ["linux/s390x"], is_strict=True)


def test_choose_platforms_of_no_image_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nothing is built for linux/arm/v7: images are for linux/386, linux/amd64"):
        choose_platforms([SATELLITE, GROUND_CONTROL], ["linux/amd64,linux/arm/v7"], is_strict=False)


def test_platform_that_an_image_is_not_built_for_has_its_reason() -> None:
    for image, platforms in PLATFORMS_OF.items():
        left_out = [each.name for each in PLATFORMS if each not in platforms]

        assert list(NOT_BUILT[image]) == left_out


@pytest.mark.parametrize(("image", "name"), [(image, name) for image, those in NOT_BUILT.items() for name in those])
def test_reason_names_what_the_lock_wants_there(image: str, name: str) -> None:
    missing = NOT_BUILT[image][name]
    (platform,) = (each for each in PLATFORMS if each.name == name)
    locked = parse_lock((ROOT / LOCK_OF[image]).read_text())

    assert missing.nowhere, "else Debian could give all of it"
    assert set(missing.nowhere) <= set(missing.without_wheel)
    assert set(missing.without_wheel) <= {each.name for each in locked if each.is_wanted_on(platform)}


def test_guide_to_images_has_the_tables_platforms_and_reasons() -> None:
    rows = [line for line in GUIDE.read_text().splitlines() if line.startswith("| linux/")]

    for platform in PLATFORMS:
        row, *reasons = (line for line in rows if line.startswith(f"| {platform.name} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        built = ["yes" if platform in PLATFORMS_OF[image] else "no" for image in (SATELLITE, GROUND_CONTROL)]
        zot = "Zot" if platform.has_zot else "embedded"
        assert cells[1:5] == [*built, zot, ", ".join(python_packages(SATELLITE, platform)) or "none"], platform.name
        if missing := NOT_BUILT[GROUND_CONTROL].get(platform.name):
            assert [cell.strip() for cell in reasons[0].strip("|").split("|")][1:] == [
                ", ".join(missing.nowhere),
                ", ".join(each for each in missing.without_wheel if each not in missing.nowhere),
            ]


@pytest.mark.parametrize(
    ("platform", "first", "last"),
    [
        pytest.param(AMD64, "manylinux_2_41_x86_64", "manylinux1_x86_64", id="amd64"),
        pytest.param(I386, "manylinux_2_41_i686", "manylinux1_i686", id="386"),
        pytest.param(ARM64, "manylinux_2_41_aarch64", "manylinux2014_aarch64", id="arm64"),
        pytest.param(RISCV64, "manylinux_2_41_riscv64", "manylinux2014_riscv64", id="riscv64"),
    ],
)
def test_wheel_tags_go_from_the_newest_glibc_to_the_oldest(platform: Platform, first: str, last: str) -> None:
    tags = wheel_tags(platform)

    assert (tags[0], tags[-1]) == (first, last)
    assert f"manylinux_2_28_{platform.machine}" in tags
    assert len(set(tags)) == len(tags)


def test_wheel_tags_never_want_a_newer_glibc_than_the_platform_has() -> None:
    platform = Platform("linux/amd64", "amd64", "x86_64", 62, glibc=(2, 28))

    assert wheel_tags(platform)[0] == "manylinux_2_28_x86_64"


def test_marker_environment_is_the_platforms_and_complete() -> None:
    environment = marker_environment(S390X)

    assert environment["platform_machine"] == "s390x"
    # PEP 508's table: whatever were missing would be filled in from the machine that builds.
    assert set(environment) == {
        *("implementation_name", "implementation_version", "os_name", "platform_machine", "platform_release"),
        *("platform_python_implementation", "platform_system", "platform_version", "python_full_version"),
        *("python_version", "sys_platform", "extra"),
    }
