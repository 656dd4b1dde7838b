"""The agent's side: what it asks root for, and what it tells of the answer."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.runtimes import (
    OUTCOME_FILE,
    WISH_FILE,
    follow,
    grant,
    read_outcomes,
    save_outcomes,
    site_mirrors,
)
from harbor_satellite.edge.status_files import read_runtimes
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.satellite.host import Host
from harbor_satellite.satellite.runtime_wish import read_wish
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from tests.unit.satellite.hosts import DAEMON, DROP_IN, MIRRORS, Reloads, put, seen

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path / "root", "usr/bin/podman", "")
    put(tmp_path / "root", DAEMON, '{"debug": true}')
    return tmp_path / "root"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.fixture
def superuser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def site(data: Path, root: Path, *runtimes: str) -> SatelliteSettings:
    return SatelliteSettings(data_dir=data, host_root=root, runtimes=runtimes)


def test_follow_nothing_wanted_leaves_no_trace(data: Path, root: Path) -> None:
    before = seen(root)

    assert follow(site(data, root)) == ()

    assert list(data.iterdir()) == []
    assert seen(root) == before


def test_follow_without_rights_asks_and_says_that_it_waits(data: Path, root: Path, nobody: None) -> None:
    before = seen(root)

    (outcome,) = follow(site(data, root, "podman"))

    assert "waits for harbor-satellite-runtime.service" in outcome.problem
    assert read_wish(data / WISH_FILE).runtimes == ("podman",)
    assert seen(root) == before


def test_follow_after_roots_answer_is_content_and_writes_nothing(data: Path, root: Path, nobody: None) -> None:
    follow(site(data, root, "podman"))
    grant(read_wish(data / WISH_FILE), Host(root, Reloads()), data)
    marks = [(data / name).stat().st_mtime_ns for name in (WISH_FILE, OUTCOME_FILE)]

    (outcome,) = follow(site(data, root, "podman"))

    assert (outcome.problem, bool(outcome.applied_at)) == ("", True)
    assert [(data / name).stat().st_mtime_ns for name in (WISH_FILE, OUTCOME_FILE)] == marks


def test_follow_answer_to_an_earlier_wish_is_no_answer(data: Path, root: Path, nobody: None) -> None:
    earlier, host = site(data, root, "podman"), Host(root, Reloads())
    later = earlier.model_copy(update={"mirrored_registries": ("docker.io", "quay.io")})
    follow(earlier)
    wish = read_wish(data / WISH_FILE)
    follow(later)
    grant(wish, host, data)  # root had read the earlier one, and is done only now

    (outcome,) = follow(later)

    assert "waits" in outcome.problem
    grant(read_wish(data / WISH_FILE), host, data)
    assert [one.problem for one in follow(later)] == [""]


def test_follow_what_was_noted_by_hand_is_no_answer_but_does_not_ask_again(
    data: Path, root: Path, nobody: None
) -> None:
    settings = site(data, root, "podman")
    follow(settings)
    grant(read_wish(data / WISH_FILE), Host(root, Reloads()), data)
    save_outcomes(data, tuple(read_outcomes(data).values()))

    assert [one.problem for one in follow(settings)] == [""]


def test_follow_same_error_is_written_once(data: Path, root: Path, nobody: None) -> None:
    follow(site(data, root, "rkt"))
    mark = (data / OUTCOME_FILE).stat().st_mtime_ns

    follow(site(data, root, "rkt"))

    assert (data / OUTCOME_FILE).stat().st_mtime_ns == mark


def test_follow_file_that_somebody_changed_is_asked_for_again(data: Path, root: Path, nobody: None) -> None:
    follow(site(data, root, "podman"))
    grant(read_wish(data / WISH_FILE), Host(root, Reloads()), data)
    (root / DROP_IN).unlink()

    (outcome,) = follow(site(data, root, "podman"))

    assert DROP_IN in outcome.problem


def test_follow_as_root_does_it_itself_and_the_status_shows_it(data: Path, root: Path, superuser: None) -> None:
    follow(site(data, root, "podman"))

    (status,) = read_runtimes(SatelliteStore(data))
    assert (status.name, status.problem) == ("podman", "")
    assert status.applied_at is not None
    assert (root / DROP_IN).exists()


def test_follow_nothing_wanted_any_more_undoes_what_the_site_did_only(data: Path, root: Path, superuser: None) -> None:
    before = seen(root)
    Host(root, Reloads()).apply("docker", MIRRORS)  # by hand
    follow(site(data, root, "podman"))

    follow(site(data, root))

    assert set(Host(root).configured()) == {"docker"}
    assert not (root / DROP_IN).exists()
    assert read_outcomes(data) == {}
    Host(root, Reloads()).undo("docker")
    assert seen(root) == before


def test_follow_one_that_is_not_here_and_one_that_refuses_do_not_stop_the_next(
    data: Path, root: Path, superuser: None
) -> None:
    put(root, DAEMON, "{")

    outcomes = {outcome.name: outcome.problem for outcome in follow(site(data, root, "containerd", "docker", "podman"))}

    assert outcomes["containerd"] == "there is no containerd on this machine"
    assert "is not JSON" in outcomes["docker"]
    assert outcomes["podman"] == ""


def test_follow_problem_is_tried_again_after_an_hour_not_before(data: Path, root: Path, superuser: None) -> None:
    follow(site(data, root, "containerd"))
    put(root, "usr/bin/containerd", "")

    (soon,) = follow(site(data, root, "containerd"))
    os.utime(data / OUTCOME_FILE, (1, 1))
    (later,) = follow(site(data, root, "containerd"))

    assert soon.problem == "there is no containerd on this machine"
    assert (later.problem, bool(later.applied_at)) == ("", True)


def test_follow_setting_that_is_wrong_is_told_and_raises_nothing(data: Path, root: Path, superuser: None) -> None:
    (outcome,) = follow(site(data, root, "rkt"))

    assert "no container runtime 'rkt'" in outcome.problem
    assert "rkt" in (data / OUTCOME_FILE).read_text()


def test_outcome_file_shows_no_diff(data: Path, root: Path, superuser: None) -> None:
    follow(site(data, root, "docker"))
    daemon = root / DAEMON
    daemon.write_text(daemon.read_text().replace("8585", "9999 secret"))

    follow(site(data, root, "docker"))

    document = json.loads((data / OUTCOME_FILE).read_text())
    assert "was changed since" in document["runtimes"]["docker"]["problem"]
    assert "9999" not in json.dumps(document)


def test_site_mirrors_ca_that_cannot_be_read_is_told(data: Path, root: Path) -> None:
    settings = SatelliteSettings(
        data_dir=data, local_registry_url="https://10.0.0.1:8585/", local_registry_ca=data / "no.pem"
    )

    with pytest.raises(InvalidInputError, match=r"no\.pem"):
        site_mirrors(settings)


def test_site_mirrors_of_a_registry_with_users_say_so(data: Path) -> None:
    settings = SatelliteSettings(data_dir=data, registry_anonymous_read=False, runtime_fallback=False)

    mirrors = site_mirrors(settings)

    assert (mirrors.needs_user, mirrors.is_fallback) == (True, False)
