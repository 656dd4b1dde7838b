from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from harbor_satellite.host_config.merge import unified_diff, without_ours

LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "# x\n"]), max_size=8).map("".join)


def test_without_ours_keeps_their_line_and_takes_ours_back() -> None:
    assert without_ours("a\nb\n", "a\nOURS\nb\n", "THEIRS\na\nOURS\nb\n") == "THEIRS\na\nb\n"


def test_without_ours_at_the_end_of_a_file_of_ours_keeps_theirs() -> None:
    assert without_ours("", "ours\nours too\n", "ours\nours too\ntheirs\n") == "theirs\n"


def test_without_ours_changed_line_of_ours_is_a_conflict() -> None:
    assert without_ours("a\n", "a\nport 1\n", "a\nport 2\n") is None


def test_without_ours_replaced_by_a_file_without_anything_of_ours_is_theirs() -> None:
    assert without_ours("old = 1\n", 'old = 1\np = "/etc/x"\n', "new = 2\n") == "new = 2\n"


def test_without_ours_one_line_that_still_has_ours_is_a_conflict() -> None:
    assert without_ours("{}\n", '{"m": ["http://l:1"]}\n', '{"m": ["http://l:1"], "debug": true}\n') is None


@settings(deadline=None)  # a busy machine is no defect
@given(LINES, LINES)
def test_without_ours_nobody_changed_anything_is_what_was_before(before: str, ours: str) -> None:
    assert without_ours(before, ours, ours) == before


@settings(deadline=None)  # a busy machine is no defect
@given(LINES, LINES)
def test_without_ours_we_changed_nothing_is_theirs(before: str, theirs: str) -> None:
    assert without_ours(before, before, theirs) == theirs


def test_unified_diff_shows_no_secret() -> None:
    diff = unified_diff("/f", 'Authorization = "Basic abc"\n', '"password": "xyz",\nport = 1\n')

    assert "abc" not in diff
    assert "xyz" not in diff
    assert "+port = 1" in diff
