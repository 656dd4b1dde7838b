"""``edge why`` and ``edge rollback`` in this process: exit codes, lines for people, JSON for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from harbor_satellite.demo.images import AMD64, layer, push_image
from harbor_satellite.edge.site import open_engine, site_settings
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.options import ReplicationOptions
from harbor_satellite.satellite.replication import FetchedState
from harbor_satellite.satellite.state_input import states_digest
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.satellite.sync import Watcher, sync_fetched
from harbor_satellite.state.artifact import StateArtifact, StateEntry
from harbor_satellite.state.names import GroupName
from tests.fakes.registry import FakeRegistry
from tests.unit.test_cli import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harbor_satellite.oci.digest import Digest

APP = "acme/app"


class EdgeSite:
    """A site with a record of its own, and what its centre has."""

    def __init__(self, folder: Path, source_url: str, target: FakeRegistry, target_url: str) -> None:
        self.folder = folder
        self.target = target
        self.target_url = target_url
        self._source_url = source_url
        self._generation = 0

    @property
    def store(self) -> SatelliteStore:
        return SatelliteStore(self.folder)

    def follow(self, content: str) -> Digest:
        """Let the site follow a generation of one image; gives the image's digest."""
        with HttpRegistry(self._source_url) as registry:
            digest = push_image(registry, APP, AMD64, [layer(content, 2000)]).digest
        self.follow_digest(digest)
        return digest

    def follow_digest(self, digest: Digest) -> None:
        """Let the site follow a generation of one image, which the centre may not have."""
        self._generation += 1
        entry = StateEntry(APP, ("v1",), digest, referrers=())
        states = (StateArtifact(GroupName("g"), self._source_url, (entry,), self._generation),)
        options = ReplicationOptions(disk_reserve_bytes=0)
        settings = site_settings(self.folder, self.target_url)
        with self.store.lock(), open_engine(settings, self.store, options, home_url="", credentials=None) as engine:
            sync_fetched(engine, FetchedState(states_digest(states), states), Watcher(sleep=lambda _: None))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("HARBOR_SATELLITE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TERM", "dumb")
    return Run(monkeypatch)


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EdgeSite]:
    source, target = FakeRegistry(), FakeRegistry()
    with source.serving() as source_url, target.serving() as target_url:
        monkeypatch.setenv("HARBOR_SATELLITE_LOCAL_REGISTRY_URL", target_url)
        yield EdgeSite(tmp_path / "data", source_url, target, target_url)


@pytest.fixture
def rolled_back(edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> EdgeSite:
    edge.follow("one")
    edge.follow("two")
    assert run("edge", "rollback") == 0
    capsys.readouterr()
    return edge


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_cli_why_says_rule_and_digests(edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = edge.follow("one"), edge.follow("two")

    code = run("edge", "why", f"{APP}:v1")

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[0] == f"{APP}:v1"
    assert "rule=moved" in lines[1]
    assert lines[3].split() == ["wanted", str(new), "groups:", "g"]
    assert lines[4].split() == ["here", str(new)]
    assert lines[5].split() == ["before", str(old)]


def test_cli_why_as_json_is_one_object_a_name(edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    digest = str(edge.follow("one"))

    code = run("edge", "why", APP, "--output", "json")

    (item,) = said(capsys)
    assert code == 0
    assert (item["reference"], item["action"], item["rule"], item["groups"]) == (f"{APP}:v1", "copied", "absent", ["g"])
    assert (item["wanted"], item["here"], item["previous"], item["retry_at"]) == (digest, digest, "", "")


def test_cli_why_says_no_reason_twice(edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    edge.follow("one")

    run("edge", "why", APP, "--output", "json")

    assert said(capsys)[0]["reason"] == "a group wants it and the local registry did not have it"


def test_cli_why_missing_image_says_when_it_is_tried_again(
    edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    old = edge.follow("one")
    missing = type(old).of(b"missing")
    edge.follow_digest(missing)

    code = run("edge", "why", f"{APP}:v1", "--output", "json")

    (item,) = said(capsys)
    (quarantined,) = edge.store.applied().quarantine
    assert code == 0
    assert (item["rule"], item["wanted"], item["here"]) == ("failed", str(missing), str(old))
    assert item["retry_at"] == quarantined.retry_at.isoformat()


def test_cli_why_unknown_image_exits_2(edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    edge.follow("one")

    code = run("edge", "why", "acme/other:v1")

    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("error: no group wants acme/other:v1")


@pytest.mark.parametrize("prefix", ["", "localhost:8585/", "http://127.0.0.1:8585/", "harbor.example.com/"])
@pytest.mark.parametrize("is_newer", [False, True], ids=["before", "newer"])
def test_cli_why_takes_a_digest_behind_any_registry(
    edge: EdgeSite,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    prefix: str,
    is_newer: bool,  # noqa: FBT001 - a column of the table
) -> None:
    both = edge.follow("one"), edge.follow("two")

    code = run("edge", "why", f"{prefix}{APP}@{both[is_newer]}", "--output", "json")

    assert code == 0
    assert said(capsys)[0]["reference"] == f"{APP}:v1"


@pytest.mark.parametrize("image", ["acme/other", f"other/{APP}", f"{APP}x:v1", f"{APP}@sha256:{'0' * 64}"])
def test_cli_why_does_not_take_one_image_for_another(edge: EdgeSite, run: Run, image: str) -> None:
    edge.follow("one")

    assert run("edge", "why", image) == 2


@pytest.mark.parametrize("image", ["No Image", "acme/app:", "acme/app@v1", "acme/app:-"])
def test_cli_why_what_is_no_image_says_the_rule(
    edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str], image: str
) -> None:
    edge.follow("one")

    code = run("edge", "why", image)

    assert code == 2
    assert "[REGISTRY/]REPOSITORY[:TAG][@DIGEST]" in capsys.readouterr().err


def test_cli_why_unknown_tag_names_those_that_are_known(
    edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.follow("one")

    code = run("edge", "why", f"{APP}:v9")

    assert code == 2
    assert f"known of that repository: {APP}:v1" in capsys.readouterr().err


def test_cli_why_local_registry_down_says_so(
    edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.follow("one")
    monkeypatch.setenv("HARBOR_SATELLITE_LOCAL_REGISTRY_URL", "http://127.0.0.1:1")

    code = run("edge", "why", APP, "--output", "json")

    (item,) = said(capsys)
    assert code == 0
    assert item["here"].startswith("unknown: ")


def test_cli_why_after_rollback_names_it(rolled_back: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("edge", "why", APP, "--output", "json")

    (item,) = said(capsys)
    assert item["rule"] == "rollback"
    assert (item["action"], item["decided_at"]) == ("rolled back", "")
    assert item["here"] == item["wanted"] != item["newer"]
    assert item["newer"]
    assert item["previous"] == ""


def test_cli_why_after_rollback_tells_people_which_is_newer(
    rolled_back: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = load_generations(rolled_back.store).previous
    assert newer is not None

    run("edge", "why", APP)

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["newer", *map(str, newer.digests().values())] in lines
    assert "before" not in {line[0] for line in lines}


def test_cli_rollback_says_what_was_done_as_json(edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    old = edge.follow("one")
    edge.follow("two")

    code = run("edge", "rollback", "--output", "json")

    document = said(capsys)
    assert code == 0
    assert [(row["reference"], row["digest"], row["rule"]) for row in document["copied"]] == [
        (f"{APP}:v1", str(old), "rollback")
    ]
    assert document["failed"] == document["deleted"] == []
    assert document["groups"] == [{"group": "g", "generation": 1}]
    current = load_generations(edge.store).current
    assert current is not None
    assert document["state_digest"] == str(current.state_digest)
    assert edge.target.tags[APP]["v1"] == str(old)


def test_cli_rollback_tells_people_what_ends_it(edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    edge.follow("one")
    edge.follow("two")

    code = run("edge", "rollback")

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[0] == f"copied      {APP}:v1  rolled back at the site"
    assert lines[-2].startswith("published: state sha256:")
    assert lines[-2].endswith("(g generation 1)")
    assert "edge rollback --undo" in lines[-1]


def test_cli_rollback_first_generation_exits_2(edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    digest = edge.follow("one")

    code = run("edge", "rollback")

    assert code == 2
    assert capsys.readouterr().err.startswith("error: there is no previous generation")
    assert edge.target.tags[APP]["v1"] == str(digest)


def test_cli_rollback_while_a_run_is_under_way_exits_1(
    edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.follow("one")
    new = edge.follow("two")

    with edge.store.lock():
        code = run("edge", "rollback")

    error = capsys.readouterr().err
    assert code == 1
    assert "another replication is running" in error
    assert "Wait until what runs now is done" in error
    assert edge.target.tags[APP]["v1"] == str(new)


def test_cli_rollback_local_registry_down_exits_1_and_keeps_the_record(
    edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.follow("one")
    edge.follow("two")
    before = load_generations(edge.store)
    monkeypatch.setenv("HARBOR_SATELLITE_LOCAL_REGISTRY_URL", "http://127.0.0.1:1")

    code = run("edge", "rollback")

    assert code == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
    assert load_generations(edge.store) == before


def test_cli_rollback_undo_publishes_what_was_gone_back_from(
    rolled_back: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = load_generations(rolled_back.store).previous
    assert newer is not None

    code = run("edge", "rollback", "--undo")

    assert code == 0
    assert f"{APP}:v1" in capsys.readouterr().out
    assert [str(digest) for digest in newer.digests().values()] == [rolled_back.target.tags[APP]["v1"]]
    assert load_generations(rolled_back.store).held is None


def test_cli_rollback_undo_as_json_says_that_it_was(
    rolled_back: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run("edge", "rollback", "--undo", "--output", "json")

    document = said(capsys)
    assert (code, document["rolled_back"]) == (0, True)
    assert [row["reference"] for row in document["copied"]] == [f"{APP}:v1"]


def test_cli_rollback_undo_of_nothing_exits_0(edge: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    edge.follow("one")

    code = run("edge", "rollback", "--undo")

    assert code == 0
    assert capsys.readouterr().out == "was not rolled back\n"


def test_cli_rollback_again_stays_and_exits_0(
    rolled_back: EdgeSite, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rolled_back.target.tags[APP]["v1"]

    code = run("edge", "rollback", "--output", "json")

    document = said(capsys)
    assert (code, document["copied"]) == (0, [])
    assert rolled_back.target.tags[APP]["v1"] == before
