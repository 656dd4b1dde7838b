import os
import subprocess
from pathlib import Path

import pytest

from ci.checks import apt_script, cache_name, make_arguments, summary

SAID = """\
.venv/bin/python -m pytest
collected 3 items
=========================== short test summary info ============================
SKIPPED [1] tests/x.py:3: NOT TESTED: there is no program 'zot' on PATH
1 passed, 1 skipped in 0.1s
"""


def test_summary_of_tests_tells_what_was_skipped() -> None:
    assert summary(SAID).splitlines()[0].strip("= ") == "short test summary info"
    assert "there is no program 'zot'" in summary(SAID)
    assert "collected" not in summary(SAID)


@pytest.mark.parametrize(
    ("said", "expected"),
    [pytest.param("ruff\nContracts: 8 kept\n", "Contracts: 8 kept", id="checks"), pytest.param("", "", id="nothing")],
)
def test_summary_of_anything_else_is_its_last_line(said: str, expected: str) -> None:
    assert summary(said) == expected


def test_make_arguments_without_any_are_the_target_alone() -> None:
    assert make_arguments("check", ()) == ["make", "check"]


def test_make_arguments_arrive_as_they_were_given(tmp_path: Path) -> None:
    given = ["-k", "a and not b", "$HOME", "it's"]
    (tmp_path / "Makefile").write_text("test:\n\t@printf '%s\\n' $(PYTEST_OPTIONS)\n")

    environment = {"PATH": os.environ["PATH"]}  # without MAKELEVEL: a make below another says where it is
    run = subprocess.run(
        make_arguments("test", given), cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert run.stdout.splitlines() == given


def test_cache_name_of_another_lock_is_another() -> None:
    assert cache_name("venv", "a", "b") == cache_name("venv", "a", "b")
    assert len({cache_name("venv", "a", "b"), cache_name("venv", "ab"), cache_name("venv", "a", "c")}) == 3


def test_apt_script_asks_the_users_mirror_and_believes_the_users_authorities() -> None:
    update, _, install = apt_script(("git", "make"), "/s/apt.sources", "/s/ca.crt").partition(" && ")

    for command in (update, install):
        assert "-o Dir::Etc::sourcelist=/s/apt.sources -o Dir::Etc::sourceparts=/dev/null" in command
        assert "-o Acquire::https::CAInfo=/s/ca.crt" in command
    assert install.endswith("git make")


def test_apt_script_without_mirrors_is_the_containers_own() -> None:
    assert " -o " not in apt_script(("git",), None, None)
