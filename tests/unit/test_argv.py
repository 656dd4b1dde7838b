from __future__ import annotations

import pytest

from harbor_satellite.argv import without_token

TOKEN = "made-up-token"
REGISTER = ["edge", "register"]


@pytest.mark.parametrize(
    ("arguments", "hidden"),
    [
        ([*REGISTER, "--token", TOKEN], [*REGISTER, "--token", "-"]),
        ([*REGISTER, f"--token={TOKEN}", "--again"], [*REGISTER, "--token=-", "--again"]),
        (
            ["--log-level", "INFO", *REGISTER, "--again", "--token", TOKEN],
            ["--log-level", "INFO", *REGISTER, "--again", "--token", "-"],
        ),
        ([*REGISTER, "--token", "made-up-first", "--token", TOKEN], [*REGISTER, "--token", "-", "--token", "-"]),
    ],
    ids=["apart", "together", "among others", "twice"],
)
def test_without_token_leaves_it_to_standard_input(arguments: list[str], hidden: list[str]) -> None:
    assert without_token(arguments) == (hidden, TOKEN)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        REGISTER,
        [*REGISTER, "--token", "-"],
        [*REGISTER, "--token=-"],
        [*REGISTER, "--token"],
        [*REGISTER, "--token="],
        [*REGISTER, "--token-file", "/a"],
        ["edge", "sync", "--token", TOKEN],
    ],
    ids=" ".join,
)
def test_without_token_nothing_to_hide_changes_nothing(arguments: list[str]) -> None:
    assert without_token(arguments) == (arguments, None)
