"""Moving a site to another registry: everything comes along, locally, whatever is killed on the way."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harbor_satellite.demo import images
from harbor_satellite.edge.own_registry import Left, load_current, save_current
from harbor_satellite.edge.registry_service import refresh_plan, registry_problem
from harbor_satellite.edge.registry_switch import switch_if_needed
from harbor_satellite.edge.services import read_sightings
from harbor_satellite.edge.site import local_registry, with_local_registry
from harbor_satellite.errors import ConflictError, RemoteError, StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.copy import Copier, is_complete, publish_tags
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.satellite.applied import Applied
from harbor_satellite.satellite.generations import Generations, SiteGeneration, Standing, save_generations
from harbor_satellite.satellite.pins import pin_tag, put_pins
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.state.desired import LocalTag
from tests.fakes.services import PlannedServices
from tests.fixtures_registry import run_embedded
from tests.integration.test_local_registry import serving
from tests.ports import free_port

if TYPE_CHECKING:
    from harbor_satellite.oci.descriptor import Descriptor

APP, TOOLS, OTHERS = "acme/app", "acme/tools", "theirs/thing"
STATE = Digest.of(b"state")


def site(folder: Path, kind: str, **values: Any) -> SatelliteSettings:
    if kind == "zot" and shutil.which("zot") is None:
        pytest.skip("NOT TESTED: there is no program 'zot' on PATH")
    given = {"registry_kind": kind, "registry_listen": f"127.0.0.1:{free_port()}"} | values
    return SatelliteSettings(data_dir=folder, _env_file=None, **given)


def changed(settings: SatelliteSettings, **values: Any) -> SatelliteSettings:
    return settings.model_copy(update=values)


def fill(registry: HttpRegistry, store: SatelliteStore, count: int = 0) -> dict[tuple[str, str], Digest]:
    """Put at the site what a run would have: an index, an SBOM that refers to an artifact, the generation before.

    Returns:
        What must be there afterwards, by repository and tag or digest.
    """
    shared = images.layer("shared", 50_000)
    children = [
        images.push_image(registry, APP, platform, [shared, images.layer(str(platform), 5000)])
        for platform in (images.AMD64, images.ARM64)
    ]
    index = images.push_index(registry, APP, "v2", children)
    before = images.push_image(registry, APP, images.AMD64, [shared, images.layer("before", 5000)])
    artifact, sbom = images.push_artifact(registry, TOOLS, "chart")
    sparse, absent = push_sparse(registry)
    put_pins(registry, [(APP, before.digest)])
    now = {LocalTag(APP, "v2"): index.digest, LocalTag(TOOLS, "chart"): artifact.digest}
    now[LocalTag(TOOLS, "sparse")] = sparse.digest
    more = {LocalTag(f"many/of-{number}", "v1"): push_one(registry, f"many/of-{number}") for number in range(count)}
    keep_record(store, now | more, {**now, LocalTag(APP, "v2"): before.digest})
    expected = {(name.repository, name.tag): digest for name, digest in (now | more).items()}
    expected[APP, pin_tag(before.digest)] = before.digest
    for each in (*children, before):
        expected[APP, str(each.digest)] = each.digest
    expected[TOOLS, str(sbom.digest)] = sbom.digest
    assert registry.blob_head(TOOLS, absent.digest) == absent.size
    return expected


def push_one(registry: HttpRegistry, repository: str) -> Digest:
    image = images.push_image(registry, repository, images.AMD64, [images.layer(repository, 300_000)])
    images.tag_image(registry, repository, "v1", image)
    return image.digest


def push_sparse(registry: HttpRegistry) -> tuple[Descriptor, Descriptor]:
    """Push an index of which only one child is there; the other's manifest is a blob, as a copy leaves it."""
    with tempfile.TemporaryDirectory() as folder, LayoutRegistry(Path(folder)) as source:
        present = images.push_image(source, TOOLS, images.AMD64, [images.layer("present", 3000)])
        absent = images.push_image(source, TOOLS, images.ARM64, [images.layer("absent", 3000)])
        index = images.push_index(source, TOOLS, "sparse", [present, absent])
        Copier(source, registry, platforms=(images.AMD64,)).stage(TOOLS, index.digest, None)
        publish_tags(registry, TOOLS, index.digest, ("sparse",))
    return index, absent


def keep_record(store: SatelliteStore, now: dict[LocalTag, Digest], before: dict[LocalTag, Digest]) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    platforms = {LocalTag(TOOLS, "sparse"): (images.AMD64,)}
    store.save_applied(
        Applied(
            state_digest=STATE,
            is_converged=True,
            wanted=now,
            owned={name: frozenset({digest}) for name, digest in now.items()},
            platforms=platforms,
            choices="as before",
        )
    )

    def generation(names: dict[LocalTag, Digest]) -> SiteGeneration:
        standing = {name: Standing(digest, (), platforms.get(name, ())) for name, digest in names.items()}
        return SiteGeneration(STATE, moment, standing)

    generations = Generations(current=generation(now), previous=generation(before))
    save_generations(store, replace(generations, pins=generations.pins_needed()))


def open_own(settings: SatelliteSettings) -> HttpRegistry:
    return serving(local_registry(with_local_registry(settings)))


def assert_all_there(registry: HttpRegistry, expected: dict[tuple[str, str], Digest]) -> None:
    for (repository, reference), digest in expected.items():
        found = registry.manifest_get(repository, reference)
        assert found.digest == digest, (repository, reference)
        platforms = (images.AMD64,) if reference == "sparse" else ()
        assert is_complete(registry, repository, digest, platforms), (repository, reference)
    (referrer,) = registry.referrer_list(TOOLS, expected[TOOLS, "chart"])
    assert referrer.digest in expected.values()


@pytest.fixture(autouse=True)
def _zot(request: pytest.FixtureRequest) -> None:
    """Skip what needs a Zot where there is none."""
    if request.node.get_closest_marker("zot") and shutil.which("zot") is None:
        pytest.skip("NOT TESTED: there is no program 'zot' on PATH")


@pytest.fixture(params=[pytest.param(("embedded", "zot"), marks=pytest.mark.zot)], ids=["zot"])
def kinds(request: pytest.FixtureRequest) -> tuple[str, str]:
    first, second = request.param
    return first, second


def test_switch_to_zot_and_back_keeps_every_digest(tmp_path: Path, kinds: tuple[str, str]) -> None:
    first, second = kinds
    settings = site(tmp_path / "site", first)
    store = SatelliteStore(settings.data_dir)
    refresh_plan(settings)
    with PlannedServices(settings.data_dir):
        registry = open_own(settings)
        expected = fill(registry, store)
        expected[OTHERS, "v1"] = push_one(registry, OTHERS)

        for kind in (second, first):
            there = changed(settings, registry_kind=kind)
            assert switch_if_needed(there)

            assert_all_there(open_own(there), expected)
            current = load_current(settings.data_dir)
            assert current is not None
            assert (current.place.kind, current.next) == (kind, None)
            assert with_local_registry(there).local_registry_url == f"http://{settings.registry_listen}"
            assert not switch_if_needed(there)

    assert store.applied().choices == ""


@pytest.mark.zot
@pytest.mark.slow
def test_switch_back_does_not_bring_back_what_was_deleted(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "embedded")
    zot = changed(settings, registry_kind="zot")
    store = SatelliteStore(settings.data_dir)
    refresh_plan(settings)
    with PlannedServices(settings.data_dir):
        fill(open_own(settings), store)
        push_one(open_own(settings), OTHERS)
        switch_if_needed(zot)
        open_own(zot).manifest_delete(OTHERS, "v1")

        switch_if_needed(settings)

        assert open_own(settings).tag_list(OTHERS) == ()


def test_switch_from_somebody_elses_takes_only_what_the_site_put_there(tmp_path: Path) -> None:
    with run_embedded(tmp_path / "theirs") as theirs:
        external = site(tmp_path / "site", "external", local_registry_url=theirs.url)
        settings = changed(external, registry_kind="embedded", local_registry_url="")
        store = SatelliteStore(settings.data_dir)
        refresh_plan(external)
        with PlannedServices(settings.data_dir), HttpRegistry(theirs.url) as registry:
            expected = fill(registry, store)
            push_one(registry, OTHERS)
            refresh_plan(settings)
            meanwhile = with_local_registry(settings).local_registry_url

            assert switch_if_needed(settings)

            own = open_own(settings)
            assert meanwhile == theirs.url
            assert with_local_registry(settings).local_registry_url == f"http://{settings.registry_listen}"
            assert_all_there(own, expected)
            assert own.tag_list(OTHERS) == ()


@pytest.mark.slow
def test_switch_to_somebody_elses_leaves_their_tags_alone(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "embedded")
    store = SatelliteStore(settings.data_dir)
    refresh_plan(settings)
    with PlannedServices(settings.data_dir), run_embedded(tmp_path / "theirs") as theirs:
        expected = fill(open_own(settings), store)
        with HttpRegistry(theirs.url) as registry:
            image = images.push_image(registry, APP, images.AMD64, [images.layer("theirs", 1000)])
            images.tag_image(registry, APP, "v2", image)
            external = changed(settings, registry_kind="external", local_registry_url=theirs.url)

            assert switch_if_needed(external)

            assert registry.manifest_get(APP, "v2").digest == image.digest
            assert registry.manifest_get(APP, str(expected.pop((APP, "v2")))).raw
            assert_all_there(registry, expected)
            assert [service.name for service in refresh_plan(external).services] == ["agent"]
            assert with_local_registry(external).local_registry_url == theirs.url


def test_switch_killed_in_the_middle_goes_on(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "embedded")
    other = changed(settings, registry_root=tmp_path / "elsewhere")
    store = SatelliteStore(settings.data_dir)
    refresh_plan(settings)
    with PlannedServices(settings.data_dir):
        expected = fill(open_own(settings), store, count=5)
        _kill_when(lambda: len(list((tmp_path / "elsewhere" / "many").glob("*/index.json"))) > 0, settings, other)

        assert load_current(settings.data_dir).next is not None  # type: ignore[union-attr]  # it is there
        assert_all_there(open_own(settings), expected)
        deleted = next(name for name in expected if (tmp_path / "elsewhere" / name[0] / "index.json").exists())
        open_own(settings).manifest_delete(*deleted)
        del expected[deleted]
        assert switch_if_needed(other)

        assert_all_there(open_own(other), expected)
        assert deleted[1] not in open_own(other).tag_list(deleted[0])
        assert load_current(settings.data_dir).place.root == str(tmp_path / "elsewhere")  # type: ignore[union-attr]


def _kill_when(is_time: Any, settings: SatelliteSettings, other: SatelliteSettings) -> None:
    source = (
        "import sys; from pathlib import Path; "
        "from harbor_satellite.edge.registry_switch import switch_if_needed; "
        "from harbor_satellite.settings import SatelliteSettings; "
        "folder, listen, root = sys.argv[1:]; "
        "switch_if_needed(SatelliteSettings(data_dir=Path(folder), registry_kind='embedded', registry_listen=listen, "
        "registry_root=Path(root), image_workers=1, _env_file=None))"
    )
    words = (str(settings.data_dir), settings.registry_listen, str(other.registry_root))
    with subprocess.Popen([sys.executable, "-c", source, *words]) as process:
        until = time.monotonic() + 60
        while not is_time() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_switch_waits_for_a_replication_that_runs(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "embedded")
    other = changed(settings, registry_root=tmp_path / "elsewhere")
    store = SatelliteStore(settings.data_dir)
    refresh_plan(settings)
    with PlannedServices(settings.data_dir):
        push_one(open_own(settings), OTHERS)

        with store.lock(), pytest.raises(ConflictError):
            switch_if_needed(other)


@pytest.mark.slow
def test_switch_of_a_damaged_image_takes_the_others_and_looks_again(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "embedded")
    other = changed(settings, registry_root=tmp_path / "elsewhere")
    store = SatelliteStore(settings.data_dir)
    refresh_plan(settings)
    with PlannedServices(settings.data_dir):
        expected = fill(open_own(settings), store, count=1)
        lost = expected.pop(("many/of-0", "v1"))
        blob = Path(load_current(settings.data_dir).place.root) / "many/of-0/blobs" / lost.algorithm / lost.hex  # type: ignore[union-attr]
        blob.write_bytes(b"x" * blob.stat().st_size)

        assert switch_if_needed(other)

        assert_all_there(open_own(other), expected)
        assert open_own(other).tag_list("many/of-0") == ()
        assert not store.applied().is_converged
        assert load_current(settings.data_dir).left == ()  # type: ignore[union-attr]  # what is left there stays


@pytest.mark.slow
def test_switch_from_a_registry_that_is_gone_gives_up_at_last(tmp_path: Path) -> None:
    external = site(tmp_path / "site", "external", local_registry_url=f"http://127.0.0.1:{free_port()}")
    settings = changed(external, registry_kind="embedded")
    store = SatelliteStore(settings.data_dir)
    refresh_plan(external)
    keep_record(store, {LocalTag(APP, "v2"): STATE}, {})
    with PlannedServices(settings.data_dir):
        with pytest.raises(RemoteError):
            switch_if_needed(settings)
        current = load_current(settings.data_dir)
        assert current is not None
        assert current.unreachable_since is not None
        hours_ago = current.unreachable_since - timedelta(hours=1)
        save_current(settings.data_dir, replace(current, unreachable_since=hours_ago))

        assert switch_if_needed(settings)

        assert open_own(settings).repository_list() == ()
        assert store.applied().choices == ""


def test_switch_from_a_registry_that_answers_again_is_not_given_up_for_another_reason(tmp_path: Path) -> None:
    with run_embedded(tmp_path / "theirs") as theirs:
        external = site(tmp_path / "site", "external", local_registry_url=theirs.url)
        settings = changed(external, registry_kind="embedded", disk_reserve_bytes=2**60)
        store = SatelliteStore(settings.data_dir)
        refresh_plan(external)
        with PlannedServices(settings.data_dir), HttpRegistry(theirs.url) as registry:
            fill(registry, store)
            current = load_current(settings.data_dir)
            assert current is not None
            hours_ago = datetime.now(UTC) - timedelta(hours=3)
            save_current(settings.data_dir, replace(current, unreachable_since=hours_ago))

            with pytest.raises(StorageError):
                switch_if_needed(settings)

            assert load_current(settings.data_dir).unreachable_since is None  # type: ignore[union-attr]
            assert with_local_registry(settings).local_registry_url == theirs.url


def test_switch_to_the_port_of_somebody_else_stays_and_says_so(tmp_path: Path) -> None:
    with run_embedded(tmp_path / "theirs") as theirs:
        external = site(tmp_path / "site", "external", local_registry_url=theirs.url)
        settings = changed(external, registry_kind="embedded", registry_listen=theirs.host)
        store = SatelliteStore(settings.data_dir)
        refresh_plan(external)
        keep_record(store, {LocalTag(APP, "v2"): STATE}, {})

        assert not switch_if_needed(settings)

        assert "is in use by another process" in registry_problem(settings.data_dir)
        assert with_local_registry(settings).local_registry_url == theirs.url


@pytest.mark.slow
def test_switch_of_the_port_alone_copies_nothing(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "embedded")
    refresh_plan(settings)
    with PlannedServices(settings.data_dir):
        digest = push_one(open_own(settings), OTHERS)
        moved = changed(settings, registry_listen=f"127.0.0.1:{free_port()}")

        refresh_plan(moved)

        assert not switch_if_needed(moved)
        assert open_own(moved).manifest_get(OTHERS, "v1").digest == digest


@pytest.mark.zot
@pytest.mark.slow
def test_switch_of_the_kind_on_one_root_goes_on_with_it(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "embedded", registry_root=tmp_path / "root")
    zot = changed(settings, registry_kind="zot")
    store = SatelliteStore(settings.data_dir)
    refresh_plan(settings)
    with PlannedServices(settings.data_dir):
        expected = fill(open_own(settings), store)

        for there in (zot, settings):
            before = read_sightings(settings.data_dir)
            refresh_plan(there)
            until = time.monotonic() + 30
            while read_sightings(settings.data_dir) == before and time.monotonic() < until:
                time.sleep(0.02)

            assert_all_there(open_own(there), expected)


def test_left_root_is_removed_when_its_time_has_come(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "embedded")
    refresh_plan(settings)
    current = load_current(settings.data_dir)
    assert current is not None
    old = settings.data_dir / "registry" / "zot"
    old.mkdir()
    fresh = replace(current, left=(Left(str(old), datetime.now(UTC) - timedelta(hours=47)),))
    save_current(settings.data_dir, fresh)

    switch_if_needed(settings)
    is_kept = old.exists()
    save_current(settings.data_dir, replace(fresh, left=(Left(str(old), datetime.now(UTC) - timedelta(hours=49)),)))
    switch_if_needed(settings)

    assert is_kept
    assert not old.exists()
    assert load_current(settings.data_dir).left == ()  # type: ignore[union-attr]
