import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ci.debian import python_packages
from ci.errors import UsageError
from ci.locks import LOCK_OF, LockedDistribution, parse_lock, requirements_text
from ci.platforms import GROUND_CONTROL, PLATFORMS, PLATFORMS_OF, SATELLITE, Platform

ROOT = Path(__file__).parents[3]
A, B = "a" * 64, "b" * 64
AMD64, ARM64, PPC64LE, S390X, I386, RISCV64 = PLATFORMS

LOCK = f"""\
# a comment
Ruamel.Yaml.Clib==0.2.15 ; platform_python_implementation == 'CPython' \\
    --hash=sha256:{A} \\
    --hash=sha256:{B}
pendulum==3.3.0 ; python_full_version < '3.13' \\
    --hash=sha256:{A}
uvloop==0.23.0 ; platform_machine == 'aarch64' or platform_machine == 'x86_64' \\
    --hash=sha256:{A}
pywin32==312 ; sys_platform == 'win32' \\
    --hash=sha256:{A}
httpx==0.28.1 \\
    --hash=sha256:{B}
"""


def test_parse_lock_of_uv_returns_names_normalised_with_markers_and_hashes() -> None:
    parsed = parse_lock(LOCK)

    assert [each.name for each in parsed] == ["ruamel-yaml-clib", "pendulum", "uvloop", "pywin32", "httpx"]
    assert parsed[0] == LockedDistribution(
        "ruamel-yaml-clib", "0.2.15", "platform_python_implementation == 'CPython'", (f"sha256:{A}", f"sha256:{B}")
    )
    assert not parsed[-1].marker


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("httpx>=0.28\n", "line 1: not a name pinned", id="not pinned"),
        pytest.param("httpx==0.28.1\n", "httpx has no sha256 hashes", id="no hash"),
        pytest.param(f"\nhttpx==0.28.1 --hash=md5:{A}\n", "line 2: httpx has no sha256", id="another hash"),
        pytest.param("--index-url https://example.org\n", "line 1: not a name pinned", id="an option"),
        pytest.param(f"httpx==1 ; python is new --hash=sha256:{A}\n", "marker that is none", id="no marker"),
        pytest.param(f"a==1 --hash=sha256:{A}\nA==1 --hash=sha256:{A}\n", "line 2: a is there twice", id="twice"),
    ],
)
def test_parse_lock_that_is_none_says_line_and_reason(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_lock(text)


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [
        pytest.param(AMD64, ["ruamel-yaml-clib", "uvloop", "httpx"], id="amd64"),
        pytest.param(ARM64, ["ruamel-yaml-clib", "uvloop", "httpx"], id="arm64"),
        pytest.param(RISCV64, ["ruamel-yaml-clib", "httpx"], id="riscv64"),
    ],
)
def test_requirements_text_evaluates_markers_for_the_platform_and_not_for_this_machine(
    platform: Platform, wanted: list[str]
) -> None:
    text = requirements_text(LOCK, platform, ())

    assert [each.name for each in parse_lock(text)] == wanted
    assert ";" not in text


def test_requirements_text_leaves_out_what_debian_gives() -> None:
    text = requirements_text(LOCK, PPC64LE, ["ruamel.yaml.clib"])

    assert text == f"httpx==0.28.1 \\\n    --hash=sha256:{B}\n"


def test_requirements_text_of_what_the_platform_does_not_need_from_debian_is_refused() -> None:
    with pytest.raises(UsageError, match=r"linux/s390x: uvloop come from Debian"):
        requirements_text(LOCK, S390X, ["uvloop"])


@pytest.mark.parametrize("image", [SATELLITE, GROUND_CONTROL])
def test_requirements_text_of_our_locks_is_made_for_every_platform_of_the_image(image: str) -> None:
    lock = (ROOT / LOCK_OF[image]).read_text()

    texts = [requirements_text(lock, each, python_packages(image, each)) for each in PLATFORMS_OF[image]]

    assert all({"pydantic-core", "whenever"} <= {each.name for each in parse_lock(text)} for text in texts)


def test_locks_of_images_and_pipeline_name_the_versions_that_tests_run_with() -> None:
    tested = {each.name: each.version for each in parse_lock((ROOT / "constraints.txt").read_text())}
    wheel = {"prefect-client": tested["prefect"]}  # its smaller twin, released with it

    for name in (*LOCK_OF.values(), "constraints-ci.txt"):
        locked = {each.name: each.version for each in parse_lock((ROOT / name).read_text())}
        assert {key: (value, {**tested, **wheel}.get(key)) for key, value in locked.items()} == {
            key: (value, value) for key, value in locked.items()
        }


def test_lock_of_the_pipeline_has_what_its_group_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {canonicalize_name(Requirement(each).name) for each in project["dependency-groups"]["ci"]}

    assert wanted <= {each.name for each in parse_lock((ROOT / "constraints-ci.txt").read_text())}
