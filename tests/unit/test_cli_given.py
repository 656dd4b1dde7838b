"""Sites that follow states given by hand: their record, and runs that pause."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from harbor_satellite.demo.images import AMD64, layer, push_image
from harbor_satellite.registry.client import HttpRegistry
from tests.unit.test_cli import APP, Run, run, source, target, write_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fakes.registry import FakeRegistry

    Follow = Callable[[str], str]

__all__ = ["run", "source", "target"]


@pytest.fixture
def follow(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    source: tuple[FakeRegistry, str],
    target: tuple[FakeRegistry, str],
) -> Follow:
    """Give a function that lets the site follow an image of some content by `edge sync --state`; gives its digest."""

    def follow(content: str) -> str:
        with HttpRegistry(source[1]) as registry:
            digest = str(push_image(registry, APP, AMD64, [layer(content, 2000)]).digest)
        state = write_state(tmp_path / "state.json", source[1], (APP, digest))
        assert run("edge", "sync", "--state", state, "--target", target[1]) == 0
        capsys.readouterr()
        return digest

    return follow


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def damage(registry: FakeRegistry) -> None:
    """Take away one layer of the image at the site."""
    size, digest = max((len(raw), digest) for digest, raw in registry.blobs[APP].items())
    assert size >= 2000
    del registry.blobs[APP][digest]


@pytest.mark.parametrize("command", [("why", APP), ("rollback",), ("rollback", "--undo"), ("audit",)], ids=" ".join)
@pytest.mark.parametrize("is_target_given", [False, True], ids=["own", "given"])
def test_cli_without_any_record_exits_1_and_says_where_one_may_be(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    target: tuple[FakeRegistry, str],
    command: tuple[str, ...],
    is_target_given: bool,  # noqa: FBT001 - a column of the table
) -> None:
    code = run("edge", *command, *(("--target", target[1]) if is_target_given else ()))

    captured = capsys.readouterr()
    assert code == 1
    assert captured.out == ""
    assert "nothing was replicated here yet" in captured.err
    assert "--target" in captured.err


def test_cli_why_with_target_finds_the_record_of_given_states(
    run: Run, capsys: pytest.CaptureFixture[str], follow: Follow, target: tuple[FakeRegistry, str]
) -> None:
    digest = follow("one")

    code = run("edge", "why", APP, "--target", target[1], "--output", "json")

    (item,) = said(capsys)
    assert code == 0
    assert (item["wanted"], item["here"]) == (digest, digest)


def test_cli_why_without_registration_finds_the_record_of_the_settings_registry(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    follow: Follow,
    target: tuple[FakeRegistry, str],
) -> None:
    digest = follow("one")
    monkeypatch.setenv("HARBOR_SATELLITE_LOCAL_REGISTRY_URL", target[1])

    code = run("edge", "why", APP, "--output", "json")

    assert code == 0
    assert said(capsys)[0]["wanted"] == digest


def test_cli_why_of_another_registry_does_not_read_the_record_of_this_one(
    run: Run, capsys: pytest.CaptureFixture[str], follow: Follow
) -> None:
    follow("one")

    code = run("edge", "why", APP, "--target", "http://127.0.0.1:1")

    assert code == 1
    assert "no record in" in capsys.readouterr().err


def test_cli_why_damaged_record_says_how_to_start_anew(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, follow: Follow, target: tuple[FakeRegistry, str]
) -> None:
    follow("one")
    (record,) = (tmp_path / "data").rglob("applied.json")
    record.write_text("{")

    code = run("edge", "why", APP, "--target", target[1])

    error = capsys.readouterr().err
    assert code == 1
    assert f"{record} is damaged" in error
    assert "move the file away" in error


def test_cli_rollback_with_target_goes_back_to_the_state_given_before(
    run: Run, capsys: pytest.CaptureFixture[str], follow: Follow, target: tuple[FakeRegistry, str]
) -> None:
    old = follow("one")
    follow("two")

    code = run("edge", "rollback", "--target", target[1])

    assert code == 0
    assert target[0].tags[APP]["v1"] == old
    assert "the next `edge sync --state`" in capsys.readouterr().out


def test_cli_audit_unregistered_lists_what_is_damaged_and_exits_1(
    run: Run, capsys: pytest.CaptureFixture[str], follow: Follow, target: tuple[FakeRegistry, str]
) -> None:
    follow("one")
    damage(target[0])

    code = run("edge", "audit", "--target", target[1])

    captured = capsys.readouterr()
    assert code == 1
    assert captured.err == ""
    assert captured.out.startswith("damaged ")
    assert "--source names a registry to heal from" in captured.out


def test_cli_audit_with_source_heals_from_there(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    follow: Follow,
    source: tuple[FakeRegistry, str],
    target: tuple[FakeRegistry, str],
) -> None:
    follow("one")
    before = set(target[0].blobs[APP])
    damage(target[0])

    code = run("edge", "audit", "--target", target[1], "--source", source[1])

    assert code == 0
    assert capsys.readouterr().out.startswith("healed ")
    assert set(target[0].blobs[APP]) == before


@pytest.mark.parametrize("command", ["sync", "audit"])
def test_cli_source_of_another_scheme_is_refused_once(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    state = write_state(tmp_path / "state.json", "http://127.0.0.1:1", (APP, f"sha256:{'0' * 64}"))

    code = run("edge", command, "--source", "ftp://x", *(("--state", state) if command == "sync" else ()))

    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("error:") == 1


def test_cli_sync_paused_before_it_begins_exits_3(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    target: tuple[FakeRegistry, str],
) -> None:
    state = write_state(tmp_path / "state.json", "http://127.0.0.1:1", (APP, f"sha256:{'0' * 64}"))
    monkeypatch.setenv("HARBOR_SATELLITE_DAILY_BYTES", "0")

    code = run("edge", "sync", "--state", state, "--target", target[1], "--output", "json")

    document = said(capsys)
    assert code == 3
    assert set(document) == {"paused", "until"}
    assert "daily cap" in document["paused"]
    assert datetime.fromisoformat(document["until"]).tzinfo is not None


def test_cli_sync_paused_tells_people_when_to_run_it_again(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    target: tuple[FakeRegistry, str],
) -> None:
    state = write_state(tmp_path / "state.json", "http://127.0.0.1:1", (APP, f"sha256:{'0' * 64}"))
    monkeypatch.setenv("HARBOR_SATELLITE_DAILY_BYTES", "0")

    code = run("edge", "sync", "--state", state, "--target", target[1])

    out = capsys.readouterr().out
    assert code == 3
    assert out.startswith("paused: the daily cap")
    assert "; run it again after " in out


@pytest.fixture
def big_state(tmp_path: Path, source: tuple[FakeRegistry, str]) -> str:
    with HttpRegistry(source[1]) as registry:
        digest = str(push_image(registry, APP, AMD64, [layer("one", 50_000)]).digest)
    return write_state(tmp_path / "state.json", source[1], (APP, digest))


def test_cli_sync_paused_half_way_exits_3_and_says_until_when(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    big_state: str,
    target: tuple[FakeRegistry, str],
) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_DAILY_BYTES", "10K")

    code = run("edge", "sync", "--state", big_state, "--target", target[1], "--output", "json")

    document = said(capsys)
    assert code == 3
    assert [row["reference"] for row in document["paused"]] == [f"{APP}:v1"]
    assert document["failed"] == []
    assert datetime.fromisoformat(document["until"]).tzinfo is not None


def test_cli_sync_storage_that_is_not_there_exits_2(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_STORAGE", str(tmp_path / "nowhere"))

    code = run("edge", "sync")

    assert code == 2
    assert "HARBOR_SATELLITE_STORAGE: no such folder" in capsys.readouterr().err


def test_cli_export_into_a_folder_that_is_not_there_exits_2(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = run("edge", "export", "--output", str(tmp_path / "nowhere" / "bundle.tar"))

    assert code == 2
    assert f"no such folder: {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_cli_export_image_that_the_site_holds_counts_as_kept(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    follow: Follow,
    target: tuple[FakeRegistry, str],
) -> None:
    follow("one")
    run("edge", "receipt", "--target", target[1])
    receipt = tmp_path / "receipt.json"
    receipt.write_text(capsys.readouterr().out)
    state, output = str(tmp_path / "state.json"), str(tmp_path / "bundle.tar")

    code = run("edge", "export", "--since", str(receipt), "--state", state, "--output", output)

    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith(f"kept        {APP}:v1")
    assert "0 in the bundle, 1 at the site already" in out
