"""Audits of real registries whose own files are damaged: what is seen, what is healed, what is put back."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from harbor_satellite.demo import images
from harbor_satellite.oci.descriptor import parse_manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.copy import Copier, is_complete, publish_tags
from harbor_satellite.satellite.applied import Applied
from harbor_satellite.satellite.audit import AuditOptions, audit_site
from harbor_satellite.satellite.connections import Connections
from harbor_satellite.satellite.engine import Engine
from harbor_satellite.satellite.findings import AuditReport, Finding, save_last_audit
from harbor_satellite.satellite.healing import finish_interrupted, heal_site
from harbor_satellite.satellite.options import ReplicationOptions
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.desired import LocalTag
from harbor_satellite.state.wire import Registration, RegistryAuth
from tests.fixtures_registry import run_cncf, run_embedded, run_zot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harbor_satellite.registry.api import ManifestContent
    from tests.fixtures_registry import RunningRegistry

RUN = {"cncf": run_cncf, "zot": run_zot, "embedded": run_embedded}
KINDS = [
    pytest.param("zot", marks=pytest.mark.zot),
    pytest.param("cncf", marks=pytest.mark.go_tool),
    pytest.param("embedded"),
]
APP, WEB, HAND = "acme/app", "acme/web", "local/by-hand"
BASE = images.layer("base", 50_000)
EVERYTHING = AuditOptions(budget_bytes=None)
ONLY = images.layer("only", 20_000)


@dataclass
class Site:
    """A source, a local registry with what a satellite brought, and what somebody made at the site."""

    running: RunningRegistry
    source: HttpRegistry
    local: HttpRegistry
    store: SatelliteStore
    source_url: str
    app: Digest
    web: Digest
    is_source_up: bool = True

    @property
    def kind(self) -> str:
        return self.running.kind

    def audit(self, options: AuditOptions = EVERYTHING) -> AuditReport:
        report = audit_site(self.local, self.store, options)
        save_last_audit(self.store, report)
        return report

    def engine(self, local: HttpRegistry | None = None) -> Engine:
        home = self.source_url if self.is_source_up else "http://127.0.0.1:9"
        connections = Connections(home_url=home, credentials=None, target=local or self.local)
        return Engine(connections, self.store, ReplicationOptions(disk_reserve_bytes=0))

    def heal(self, local: HttpRegistry | None = None) -> AuditReport:
        engine = self.engine(local)
        with self.store.lock(), engine.connections:
            return heal_site(engine, self.audit())

    def finish(self) -> AuditReport | Finding | None:
        engine = self.engine()
        with self.store.lock(), engine.connections:
            return finish_interrupted(engine)

    def files(self, digest: Digest) -> list[Path]:
        found = [path for path in self.running.root.rglob("*") if path.is_file()]
        named = (path for path in found if digest.hex in (path.name, path.parent.name))
        return [path for path in named if path.name in (digest.hex, "data")]

    def damage(self, digest: Digest, how: Callable[[Path], None]) -> None:
        paths = {path.stat().st_ino: path for path in self.files(digest)}
        assert paths
        for path in paths.values():
            how(path)

    def tags(self) -> dict[str, Digest]:
        names = (f"{each}:{tag}" for each in (APP, WEB, HAND) for tag in self.local.tag_list(each))
        return {name: self.local.manifest_get(*name.rsplit(":", 1)).digest for name in names}

    def is_whole(self) -> bool:
        return not self.audit().findings and all(
            _reads(self.local, repository, BASE.descriptor.digest) for repository in (APP, WEB, HAND)
        )


def _reads(registry: HttpRegistry, repository: str, digest: Digest) -> bool:
    with registry.blob_get(repository, digest) as stream:
        return Digest.of(b"".join(stream)) == digest


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(raw)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def empty(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)


def remove(path: Path) -> None:
    hard_links = [path]
    if path.name != "data":
        root = path
        while root.name != "data":
            root = root.parent
        hard_links = [each for each in root.rglob(path.name) if each.is_file()]
    for each in hard_links:
        each.unlink()


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        source = stack.enter_context(run_embedded(tmp_path / "source"))
        running = stack.enter_context(RUN[request.param](tmp_path / "local"))
        registries = [stack.enter_context(HttpRegistry(each.url)) for each in (source, running)]
        yield fill(running, *registries, source.url, tmp_path / "satellite")


def fill(running: RunningRegistry, source: HttpRegistry, local: HttpRegistry, source_url: str, data: Path) -> Site:
    app = images.push_image(source, APP, images.AMD64, [BASE, ONLY])
    children = [
        images.push_image(source, WEB, platform, [BASE, images.layer(str(platform), 5000)])
        for platform in (images.AMD64, images.ARM64)
    ]
    web = images.push_index(source, WEB, "v1", children)
    for repository, digest, tags in ((APP, app.digest, ("v1", "stable")), (WEB, web.digest, ("v1",))):
        Copier(source, local).stage(repository, digest, None)
        publish_tags(local, repository, digest, tags)
    by_hand = images.push_image(local, HAND, images.AMD64, [BASE])
    images.tag_image(local, HAND, "mine", by_hand)
    images.tag_image(local, APP, "by-hand", app)
    store = SatelliteStore(data)
    names = {LocalTag(APP, "v1"): app.digest, LocalTag(APP, "stable"): app.digest, LocalTag(WEB, "v1"): web.digest}
    owned = {name: frozenset({digest}) for name, digest in names.items()}
    store.save_applied(Applied(is_converged=True, wanted=names, owned=owned))
    return Site(running, source, local, store, source_url, app.digest, web.digest)


def test_audit_of_a_whole_site_finds_nothing(site: Site) -> None:
    report = site.audit()

    assert report.findings == ()
    assert report.is_whole
    assert report.manifests_read == 4


DAMAGES = {"flipped": flip, "truncated": truncate, "empty": empty, "missing": remove}
CNCF_HEALS = {"missing"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_heal_shared_blob_is_whole_again_in_every_repository(site: Site, damage: str) -> None:
    before, record = site.tags(), site.store.applied()
    site.damage(BASE.descriptor.digest, DAMAGES[damage])

    report = site.heal()

    assert site.tags() == before
    assert site.store.applied() == record
    (finding,) = report.findings
    assert finding.digest == BASE.descriptor.digest
    assert {str(name) for name in finding.images} == {f"{APP}:v1", f"{APP}:stable", f"{WEB}:v1"}
    if site.kind == "cncf" and damage not in CNCF_HEALS:
        assert not finding.is_healed
        assert "keeps its damaged copy" in finding.note
        assert all(site.local.blob_head(each, BASE.descriptor.digest) is not None for each in (APP, WEB, HAND))
        assert site.finish() is None
        return
    assert finding.is_healed
    assert site.is_whole()
    assert report.bytes_from_source == BASE.descriptor.size


@pytest.mark.parametrize(
    ("which", "damage"),
    [("index", "flipped"), ("child", "flipped"), ("child", "truncated"), ("index", "empty"), ("plain", "missing")],
)
def test_heal_manifest_is_whole_again_under_every_tag(site: Site, which: str, damage: str) -> None:
    before = site.tags()
    digest = {"index": site.web, "child": child_of(site), "plain": site.app}[which]
    site.damage(digest, change_a_digit if damage == "flipped" else DAMAGES[damage])

    report = site.heal()

    (finding,) = report.findings
    assert (finding.subject, finding.digest) == ("manifest", digest)
    if site.kind == "cncf" and damage not in CNCF_HEALS:
        assert not finding.is_healed
        return
    assert finding.is_healed, finding.note
    assert site.tags() == before
    assert site.audit().findings == ()


def change_a_digit(path: Path) -> None:
    """Damage a manifest so that it is still JSON: the first digit of its first digest."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"sha256:") + len(b"sha256:")
    raw[at] = ord("0") if raw[at] != ord("0") else ord("1")
    with path.open("r+b") as file:
        file.write(raw)


def child_of(site: Site) -> Digest:
    content = site.source.manifest_get(WEB, str(site.web))
    return parse_manifest(content.raw, content.media_type, "web").manifests[0].digest


class Killed(BaseException):
    """Stands for a process that ends at this very place."""


class Dying(HttpRegistry):
    """The site's registry, at which the healing process ends."""

    killed_at: str = ""

    def blob_delete(self, repository: str, digest: Digest) -> bool:
        was_there = super().blob_delete(repository, digest)
        if self.killed_at == "after deleting the blob" and was_there:
            raise Killed
        return was_there

    def manifest_put(self, repository: str, reference: str, content: ManifestContent) -> None:
        if self.killed_at == "before the manifests":
            raise Killed
        if self.killed_at == "before the tags" and ":" not in reference:
            raise Killed
        super().manifest_put(repository, reference, content)


@pytest.fixture
def zot_site(tmp_path: Path) -> Iterator[Site]:
    with (
        run_embedded(tmp_path / "source") as source,
        run_zot(tmp_path / "local") as running,
        HttpRegistry(source.url) as central,
        HttpRegistry(running.url) as local,
    ):
        yield fill(running, central, local, source.url, tmp_path / "satellite")


def kill_healing(site: Site, at: str) -> None:
    site.damage(BASE.descriptor.digest, flip)
    with HttpRegistry(site.running.url) as registry:
        registry.__class__ = Dying
        registry.killed_at = at  # type: ignore[attr-defined]
        with pytest.raises(Killed):
            site.heal(registry)


@pytest.mark.zot
@pytest.mark.parametrize("killed_at", ["after deleting the blob", "before the manifests", "before the tags"])
def test_finish_after_a_kill_puts_everything_back_without_the_source(zot_site: Site, killed_at: str) -> None:
    before = zot_site.tags()
    kill_healing(zot_site, killed_at)
    assert zot_site.tags() != before
    zot_site.is_source_up = False

    finding = zot_site.finish()

    assert isinstance(finding, Finding)
    assert finding.is_healed
    assert zot_site.tags() == before
    assert zot_site.is_whole()
    assert zot_site.finish() is None


@pytest.mark.zot
def test_finish_after_a_kill_leaves_what_a_replication_took_away_or_moved(zot_site: Site) -> None:
    kill_healing(zot_site, "before the manifests")
    newer = images.push_image(zot_site.local, APP, images.AMD64, [images.layer("newer", 500)])
    images.tag_image(zot_site.local, APP, "v1", newer)
    record = zot_site.store.applied()
    owned = {LocalTag(APP, "v1"): frozenset({newer.digest}), LocalTag(WEB, "v1"): frozenset({zot_site.web})}
    zot_site.store.save_applied(replace(record, owned=owned))

    zot_site.finish()

    tags = zot_site.tags()
    assert tags[f"{APP}:v1"] == newer.digest
    assert f"{APP}:stable" not in tags
    assert tags[f"{APP}:by-hand"] == zot_site.app
    assert tags[f"{WEB}:v1"] == zot_site.web


@pytest.mark.zot
def test_heal_source_down_deletes_nothing(zot_site: Site) -> None:
    before = zot_site.tags()
    zot_site.damage(BASE.descriptor.digest, flip)
    zot_site.is_source_up = False

    report = zot_site.heal()

    assert [finding.is_healed for finding in report.findings] == [False]
    assert "RemoteError" in report.findings[0].note
    assert zot_site.tags() == before


@pytest.mark.zot
def test_heal_source_damaged_too_deletes_nothing(zot_site: Site, tmp_path: Path) -> None:
    before = zot_site.tags()
    for path in (tmp_path / "source").rglob(BASE.descriptor.digest.hex):
        truncate(path)
        path.write_bytes(b"x" * BASE.descriptor.size)
    zot_site.damage(BASE.descriptor.digest, flip)

    report = zot_site.heal()

    assert "DigestMismatchError" in report.findings[0].note
    assert zot_site.tags() == before


@pytest.mark.zot
def test_heal_held_by_a_manifest_that_nothing_leads_to_puts_everything_back(zot_site: Site) -> None:
    images.push_image(zot_site.local, "local/hidden", images.ARM64, [BASE])
    before = zot_site.tags()
    zot_site.damage(BASE.descriptor.digest, flip)

    report = zot_site.heal()

    assert [finding.is_healed for finding in report.findings] == [False]
    assert "held by a manifest that no tag leads to" in report.findings[0].note
    assert zot_site.tags() == before
    assert zot_site.finish() is None


@pytest.mark.zot
def test_heal_layer_of_a_sparse_index_keeps_it_sparse(zot_site: Site) -> None:
    children = [
        images.push_image(zot_site.source, "acme/thin", platform, [images.layer(f"thin {platform}", 9000)])
        for platform in (images.AMD64, images.ARM64)
    ]
    thin = images.push_index(zot_site.source, "acme/thin", "v1", children)
    Copier(zot_site.source, zot_site.local, platforms=(images.AMD64,)).stage("acme/thin", thin.digest, None)
    publish_tags(zot_site.local, "acme/thin", thin.digest, ("v1",))
    name, record = LocalTag("acme/thin", "v1"), zot_site.store.applied()
    zot_site.store.save_applied(
        replace(
            record,
            wanted={**record.wanted, name: thin.digest},
            owned={**record.owned, name: frozenset({thin.digest})},
            platforms={name: (images.AMD64,)},
        )
    )
    layer = images.layer("thin linux/amd64", 9000).descriptor.digest
    zot_site.damage(layer, flip)

    report = zot_site.heal()

    assert [(finding.digest, finding.is_healed) for finding in report.findings] == [(layer, True)]
    assert zot_site.local.manifest_get("acme/thin", "v1").digest == thin.digest
    assert zot_site.local.blob_head("acme/thin", images.layer("thin linux/arm64", 9000).descriptor.digest) is None
    assert zot_site.audit().findings == ()


def test_heal_referrer_with_a_damaged_blob_is_whole_again(site: Site) -> None:
    artifact, sbom = images.push_artifact(site.source, "acme/chart", "v1")
    Copier(site.source, site.local).stage("acme/chart", artifact.digest, None)
    publish_tags(site.local, "acme/chart", artifact.digest, ("v1",))
    name, record = LocalTag("acme/chart", "v1"), site.store.applied()
    owned = {**record.owned, name: frozenset({artifact.digest})}
    site.store.save_applied(replace(record, wanted={**record.wanted, name: artifact.digest}, owned=owned))
    content = Digest.of(b'{"packages":["demo"]}')
    site.damage(content, remove)

    report = site.heal()

    assert [(finding.digest, finding.is_healed) for finding in report.findings] == [(content, True)]
    assert is_complete(site.local, "acme/chart", sbom.digest)


AUDIT = (sys.executable, "-c", "from harbor_satellite.cli import main; main()", "edge", "audit")


def run_audit(site: Site, *arguments: str) -> tuple[int, dict[str, Any]]:
    registration = Registration(
        state=f"{site.source_url}/satellite/satellite-state/shop/state:latest",
        auth=RegistryAuth(url=site.source_url, username="", password=SecretStr("")),
        satellite="shop",
    )
    site.store.save_registration(registration)
    environment = {
        "HARBOR_SATELLITE_DATA_DIR": str(site.store.folder),
        "HARBOR_SATELLITE_LOCAL_REGISTRY_URL": site.running.url,
        "HARBOR_SATELLITE_DISK_RESERVE_BYTES": "0",
    }
    command = [*AUDIT, "--output", "json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr.decode()}


@pytest.mark.zot
def test_command_says_what_is_damaged_and_then_heals_it(zot_site: Site) -> None:
    zot_site.damage(BASE.descriptor.digest, flip)

    code, only_told = run_audit(zot_site, "--no-heal", "--budget", "all")
    assert (code, [item["is_healed"] for item in only_told["findings"]]) == (1, [False])

    code, healed = run_audit(zot_site, "--budget", "1Ki")
    assert (code, [item["is_healed"] for item in healed["findings"]]) == (0, [True])
    assert run_audit(zot_site, "--budget", "1G")[0] == 0
    assert zot_site.is_whole()


def test_command_wrong_budget_is_wrong_use(zot_site: Site) -> None:
    code, said = run_audit(zot_site, "--budget", "much")

    assert code == 2
    assert "not a size" in said["stderr"]
