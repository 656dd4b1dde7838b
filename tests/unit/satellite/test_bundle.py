"""Whole ways by carried media: receipt, export, import, between layouts on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo.images import AMD64, ARM64, layer, push_artifact, push_image, push_index, tag_image
from harbor_satellite.errors import DigestMismatchError, InvalidInputError, RemoteError, UntrustedDataError
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.bundle_registry import BundleRegistry
from harbor_satellite.registry.bundle_writer import BundleWriter
from harbor_satellite.satellite.bundle_decision import decide
from harbor_satellite.satellite.bundle_export import ExportOptions, ExportOutcome, _Export, export_bundle
from harbor_satellite.satellite.bundle_import import BundleConnections
from harbor_satellite.satellite.bundle_names import BUNDLE_HOST, BUNDLE_STATE_REPOSITORY, STATE
from harbor_satellite.satellite.engine import Engine
from harbor_satellite.satellite.receipt import Receipt, parse_receipt, receipt_json
from harbor_satellite.satellite.site_contents import read_site
from harbor_satellite.satellite.sync import Watcher, sync_satellite
from harbor_satellite.state.artifact import StateArtifact, StateEntry, state_artifact_json
from harbor_satellite.state.names import GroupName, group_state_repository, satellite_state_repository
from harbor_satellite.state.satellite_state import SatelliteState, StatePin, satellite_state_json
from tests.unit.satellite.site import HOST, OPTIONS, SHOP, STATE_URL, Site, put_state, wanted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import BlobStream
    from harbor_satellite.satellite.options import ReplicationOptions
    from harbor_satellite.satellite.outcome import RunOutcome

APP = "acme/app"
OTHER = "acme/other"


@dataclass
class Courier:
    """Carries bundles from the centre to the site, which has no link."""

    site: Site
    folder: Path
    bundles: int = 0

    def receipt(self) -> Receipt:
        contents = read_site(self.site.local)
        receipt = Receipt(
            groups=self.site.store.applied().groups,
            repositories=contents.repositories,
            blobs=contents.largest_blobs(),
        )
        return parse_receipt(receipt_json(receipt), "the receipt")

    def export(
        self,
        receipt: Receipt | None = None,
        given: Sequence[str] = (STATE_URL,),
        platforms: tuple[Platform, ...] = (),
        part_bytes: int | None = None,
    ) -> ExportOutcome:
        self.bundles += 1
        output = self.folder / f"{self.bundles}.tar"
        decision = decide(self.site.connections, given, receipt.groups if receipt else (), self.site.now)
        options = ExportOptions(output, part_bytes, platforms, receipt, sleep=lambda _: None)
        return export_bundle(self.site.connections, decision, options, self.site.now)

    def bring(self, bundle: Path, options: ReplicationOptions = OPTIONS, registered: str = STATE_URL) -> RunOutcome:
        with BundleConnections(bundle, self.site.local) as connections:
            connections.check()
            engine = Engine(connections.as_connections(), self.site.store, options, now=lambda: self.site.now)
            decision = connections.decision()
            if decision.is_own:
                decision.check_satellite("", registered)
            return sync_satellite(engine, decision.state, Watcher(sleep=lambda _: None))

    def publish(self, generation: int, entries: Sequence[StateEntry], group: str = "g") -> Digest:
        """Publish one group in a generation of its own."""
        name = GroupName(group)
        raw = state_artifact_json(StateArtifact(name, f"https://{HOST}", tuple(entries), generation))
        digest = put_state(self.site.home, group_state_repository(name), raw)
        pin = StatePin(name, Reference(HOST, group_state_repository(name), "latest", digest), generation)
        whole = satellite_state_json(SatelliteState(SHOP, (pin,)))
        return put_state(self.site.home, satellite_state_repository(SHOP), whole)


@pytest.fixture
def courier(site: Site, tmp_path: Path) -> Courier:
    return Courier(site, tmp_path)


def actions(outcome: RunOutcome | ExportOutcome) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for image in outcome.images:
        found.setdefault(image.action, []).append(image.reference)
    return {action: sorted(references) for action, references in found.items()}


def members(bundle: Path) -> Mapping[str, int]:
    """Return the size of each blob in a bundle."""
    with BundleRegistry(bundle) as registry:
        return {str(digest): size for digest, (_, size) in registry._directory.places.items()}


def test_full_bundle_brings_an_empty_site_in_step(courier: Courier) -> None:
    site = courier.site
    digest = site.image(APP, "one", "v1")
    state = courier.publish(1, [wanted(APP, digest, "v1")])

    exported = courier.export()
    site.home.requests = 0
    outcome = courier.bring(exported.paths[0])

    assert actions(exported) == {"copied": ["acme/app:v1"]}
    assert actions(outcome) == {"copied": ["acme/app:v1"]}
    assert site.local_tags(APP) == {"v1": digest}
    assert outcome.state_digest == str(state)
    assert site.home.requests == 0


def test_import_then_sync_over_the_link_finds_nothing_to_do(courier: Courier) -> None:
    site = courier.site
    courier.publish(1, [wanted(APP, site.image(APP, "one", "v1"), "v1")])
    courier.bring(courier.export().paths[0])

    outcome = site.sync()

    assert actions(outcome) == {"kept": ["acme/app:v1"]}
    assert site.home.requests == 1


def test_import_twice_changes_nothing(courier: Courier) -> None:
    courier.publish(1, [wanted(APP, courier.site.image(APP, "one", "v1"), "v1")])
    bundle = courier.export().paths[0]
    courier.bring(bundle)

    outcome = courier.bring(bundle)

    assert actions(outcome) == {"kept": ["acme/app:v1"]}
    assert not outcome.is_news


def test_incremental_bundle_carries_only_what_the_site_lacks(courier: Courier) -> None:
    site = courier.site
    base, first, second = layer("base", 300_000), layer("first", 2000), layer("second", 2000)
    old = push_image(site.home, APP, AMD64, [base, first])
    same = push_image(site.home, OTHER, AMD64, [layer("same", 200_000)])
    courier.publish(1, [wanted(APP, old.digest, "v1"), wanted(OTHER, same.digest, "v1")])
    full = courier.export()
    courier.bring(full.paths[0])
    new = push_image(site.home, APP, AMD64, [base, second])
    courier.publish(2, [wanted(APP, new.digest, "v1"), wanted(OTHER, same.digest, "v1")])

    exported = courier.export(courier.receipt())
    outcome = courier.bring(exported.paths[0])

    assert actions(exported) == {"copied": ["acme/app:v1"], "kept": ["acme/other:v1"]}
    carried = members(exported.paths[0])
    assert str(second.descriptor.digest) in carried
    assert str(base.descriptor.digest) not in carried
    assert str(same.digest) not in carried
    assert exported.size < 30_000
    assert full.size > 500_000
    assert actions(outcome) == {"copied": ["acme/app:v1"], "kept": ["acme/other:v1"]}
    assert site.local_tags(APP) == {"v1": new.digest}


def test_incremental_export_of_an_unchanged_site_reads_the_states_only(courier: Courier) -> None:
    site = courier.site
    entries = [wanted(f"acme/app-{n}", site.image(f"acme/app-{n}", str(n), "v1"), "v1") for n in range(5)]
    courier.publish(1, entries)
    courier.bring(courier.export().paths[0])
    receipt = courier.receipt()
    site.home.requests = 0

    exported = courier.export(receipt)

    assert actions(exported) == {"kept": [f"acme/app-{n}:v1" for n in range(5)]}
    assert site.home.requests < 10


def test_blob_that_the_site_has_in_another_repository_is_left_out_and_found(courier: Courier) -> None:
    site = courier.site
    shared = layer("shared", 100_000)
    first = push_image(site.home, APP, AMD64, [shared])
    courier.publish(1, [wanted(APP, first.digest, "v1")])
    courier.bring(courier.export().paths[0])
    second = push_image(site.home, OTHER, AMD64, [shared, layer("own", 1000)])
    courier.publish(2, [wanted(APP, first.digest, "v1"), wanted(OTHER, second.digest, "v1")])

    exported = courier.export(courier.receipt())
    courier.bring(exported.paths[0])

    assert str(shared.descriptor.digest) not in members(exported.paths[0])
    assert site.local_tags(OTHER) == {"v1": second.digest}


def test_blob_that_only_a_foreign_image_has_at_the_site_is_found(courier: Courier) -> None:
    site = courier.site
    shared = layer("shared", 100_000)
    foreign = push_image(site.local, "somebody/else", AMD64, [shared])
    tag_image(site.local, "somebody/else", "v1", foreign)
    image = push_image(site.home, APP, AMD64, [shared, layer("own", 1000)])
    courier.publish(1, [wanted(APP, image.digest, "v1")])

    exported = courier.export(courier.receipt())
    courier.bring(exported.paths[0])

    assert str(shared.descriptor.digest) not in members(exported.paths[0])
    assert site.local_tags(APP) == {"v1": image.digest}


def test_what_the_site_lost_since_its_receipt_is_named_and_the_rest_goes_on(courier: Courier) -> None:
    site = courier.site
    lost = layer("lost", 50_000)
    old = push_image(site.home, APP, AMD64, [lost])
    courier.publish(1, [wanted(APP, old.digest, "v1")])
    courier.bring(courier.export().paths[0])
    new = push_image(site.home, APP, AMD64, [lost, layer("more", 1000)])
    whole = site.image(OTHER, "whole")
    courier.publish(2, [wanted(APP, new.digest, "v2"), wanted(OTHER, whole, "v1")])
    exported = courier.export(courier.receipt())
    (site.local.root / APP / "blobs" / "sha256" / lost.descriptor.digest.hex).unlink()

    outcome = courier.bring(exported.paths[0])

    (failed,) = outcome.of("failed")
    assert failed.reference == "acme/app:v2"
    assert str(lost.descriptor.digest) in failed.reason
    assert "make a bundle for a new receipt" in failed.reason
    assert "v2" not in site.local_tags(APP)
    assert site.local_tags(OTHER) == {"v1": whole}


def test_older_bundle_is_refused_and_the_site_stays_as_it_is(courier: Courier) -> None:
    site = courier.site
    old, new = site.image(APP, "old"), site.image(APP, "new")
    courier.publish(1, [wanted(APP, old, "v1")])
    older = courier.export().paths[0]
    courier.publish(2, [wanted(APP, new, "v1")])
    courier.bring(courier.export().paths[0])

    with pytest.raises(UntrustedDataError, match="went back from generation 2 to 1"):
        courier.bring(older)

    assert site.local_tags(APP) == {"v1": new}


def test_export_of_less_than_the_site_follows_is_refused(courier: Courier) -> None:
    site = courier.site
    courier.publish(2, [wanted(APP, site.image(APP, "one"), "v1")])
    courier.bring(courier.export().paths[0])
    receipt = courier.receipt()
    courier.publish(1, [wanted(APP, site.image(APP, "one"), "v1")])

    with pytest.raises(UntrustedDataError, match="generation 2"):
        courier.export(receipt)


def test_expired_decision_is_refused_at_import(courier: Courier) -> None:
    site = courier.site
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest, "v1")]}, expires_at=datetime.now(UTC) + timedelta(hours=1))
    bundle = courier.export().paths[0]
    site.pass_time(timedelta(hours=2))

    with pytest.raises(UntrustedDataError, match="expired"):
        courier.bring(bundle)

    assert site.local.repository_list() == ()


def test_bundle_of_another_satellite_is_refused(courier: Courier) -> None:
    courier.publish(1, [wanted(APP, courier.site.image(APP, "one"), "v1")])
    bundle = courier.export().paths[0]

    with pytest.raises(InvalidInputError, match=r"made for shop; this site follows .*/van/state"):
        courier.bring(bundle, registered=STATE_URL.replace("/shop/", "/van/"))

    assert courier.site.local.repository_list() == ()


def test_split_bundle_is_imported_by_its_first_part(courier: Courier) -> None:
    site = courier.site
    image = push_image(site.home, APP, AMD64, [layer("large", 500_000)])
    courier.publish(1, [wanted(APP, image.digest, "v1")])

    exported = courier.export(part_bytes=100_000)
    courier.bring(exported.paths[0])

    assert len(exported.paths) > 5
    assert site.local_tags(APP) == {"v1": image.digest}


@pytest.mark.parametrize("is_named", [True, False], ids=["named", "asked-for"])
def test_referrers_come_along(courier: Courier, *, is_named: bool) -> None:
    site = courier.site
    artifact, sbom = push_artifact(site.home, APP, "chart")
    entry = wanted(APP, artifact.digest, "chart")
    courier.publish(1, [replace(entry, referrers=(sbom.digest,) if is_named else None)])

    courier.bring(courier.export().paths[0])

    assert [item.digest for item in site.local.referrer_list(APP, artifact.digest)] == [sbom.digest]


def test_new_signature_of_an_image_at_the_site_comes_without_the_image(courier: Courier) -> None:
    site = courier.site
    artifact, sbom = push_artifact(site.home, APP, "chart")
    courier.publish(1, [wanted(APP, artifact.digest, "chart")])
    courier.bring(courier.export().paths[0])
    courier.publish(2, [replace(wanted(APP, artifact.digest, "chart"), referrers=(sbom.digest,))])

    exported = courier.export(courier.receipt())
    courier.bring(exported.paths[0])

    assert str(artifact.digest) not in members(exported.paths[0])
    assert [item.digest for item in site.local.referrer_list(APP, artifact.digest)] == [sbom.digest]


def index_of_two(site: Site) -> tuple[Digest, dict[str, str]]:
    """Push an index of two platforms; gives its digest, and the digest of each platform's layer."""
    layers = {str(platform): layer(str(platform), 50_000) for platform in (AMD64, ARM64)}
    children = [push_image(site.home, APP, platform, [layers[str(platform)]]) for platform in (AMD64, ARM64)]
    index = push_index(site.home, APP, "v1", children)
    return index.digest, {name: str(item.descriptor.digest) for name, item in layers.items()}


def test_platform_filter_leaves_other_layers_out_and_keeps_the_index(courier: Courier) -> None:
    site = courier.site
    index, layers = index_of_two(site)
    courier.publish(1, [wanted(APP, index, "v1")])

    exported = courier.export(platforms=(AMD64,))
    courier.bring(exported.paths[0], replace(OPTIONS, platforms=(AMD64,)))

    carried = members(exported.paths[0])
    assert layers["linux/amd64"] in carried
    assert layers["linux/arm64"] not in carried
    assert site.local_tags(APP) == {"v1": index}


def test_platform_added_later_is_topped_up_alone(courier: Courier) -> None:
    site = courier.site
    index, layers = index_of_two(site)
    courier.publish(1, [wanted(APP, index, "v1")])
    courier.bring(courier.export(platforms=(AMD64,)).paths[0], replace(OPTIONS, platforms=(AMD64,)))

    exported = courier.export(courier.receipt(), platforms=(AMD64, ARM64))
    courier.bring(exported.paths[0], replace(OPTIONS, platforms=(AMD64, ARM64)))

    carried = members(exported.paths[0])
    assert layers["linux/amd64"] not in carried
    assert layers["linux/arm64"] in carried
    assert courier.receipt().holds_manifest(APP, index, ())


def test_image_that_the_source_lacks_is_reported_and_the_others_go(courier: Courier) -> None:
    site = courier.site
    good, bad = site.image(APP, "good"), layer("bad", 2000)
    image = push_image(site.home, OTHER, AMD64, [bad])
    (site.home.root / OTHER / "blobs" / "sha256" / bad.descriptor.digest.hex).unlink()
    courier.publish(1, [wanted(APP, good, "v1"), wanted(OTHER, image.digest, "v1")])

    exported = courier.export()
    courier.bring(exported.paths[0])

    assert actions(exported) == {"copied": ["acme/app:v1"], "failed": ["acme/other:v1"]}
    assert not exported.is_complete
    assert site.local_tags(APP) == {"v1": good}
    assert site.local_tags(OTHER) == {}


def test_image_damaged_at_the_source_is_not_carried(courier: Courier) -> None:
    site = courier.site
    bad = layer("bad", 2000)
    image = push_image(site.home, APP, AMD64, [bad])
    path = site.home.root / APP / "blobs" / "sha256" / bad.descriptor.digest.hex
    path.chmod(0o644)
    path.write_bytes(bytes(bad.descriptor.size))
    courier.publish(1, [wanted(APP, image.digest, "v1")])

    exported = courier.export()

    (failed,) = exported.images
    assert failed.action == "failed"
    assert DigestMismatchError.__name__ in failed.reason
    assert str(bad.descriptor.digest) not in members(exported.paths[0])


def test_link_that_goes_away_leaves_no_bundle(courier: Courier, monkeypatch: pytest.MonkeyPatch) -> None:
    site = courier.site
    courier.publish(1, [wanted(APP, site.image(APP, "one"), "v1"), wanted(OTHER, site.image(OTHER, "two"), "v1")])

    read = site.home.blob_get

    def blob_get(repository: str, digest: Digest, offset: int = 0) -> AbstractContextManager[BlobStream]:
        if repository == OTHER:
            raise RemoteError("centre.test cannot be reached", retryable=True)
        return read(repository, digest, offset)

    monkeypatch.setattr(site.home, "blob_get", blob_get)
    with pytest.raises(RemoteError, match="cannot be reached"):
        courier.export()

    assert not [path for path in courier.folder.iterdir() if path.name.endswith((".tar", ".unfinished"))]


def test_link_that_comes_back_costs_no_image(courier: Courier, monkeypatch: pytest.MonkeyPatch) -> None:
    site = courier.site
    digest = site.image(APP, "one")
    courier.publish(1, [wanted(APP, digest, "v1")])
    read, failures = site.home.blob_get, iter(range(2))

    def blob_get(repository: str, digest: Digest, offset: int = 0) -> AbstractContextManager[BlobStream]:
        if repository == APP and next(failures, None) is not None:
            raise RemoteError("centre.test cannot be reached", retryable=True)
        return read(repository, digest, offset)

    monkeypatch.setattr(site.home, "blob_get", blob_get)
    exported = courier.export()
    courier.bring(exported.paths[0])

    assert actions(exported) == {"copied": ["acme/app:v1"]}
    assert site.local_tags(APP) == {"v1": digest}


def test_decision_of_the_centre_stays_its_own_under_another_name(courier: Courier, tmp_path: Path) -> None:
    """Whoever holds the medium may rename a genuine old state, but not have it taken for one given by hand."""
    site = courier.site
    courier.publish(1, [wanted(APP, site.image(APP, "one"), "v1")])
    decision = decide(site.connections, (STATE_URL,), (), site.now)
    renamed = replace(
        decision,
        state=f"{BUNDLE_HOST}/{BUNDLE_STATE_REPOSITORY}:latest",
        artifacts=(*decision.artifacts[:-1], replace(decision.artifacts[-1], names=())),
    )
    with BundleWriter(tmp_path / "b.tar") as writer:
        export = _Export(site.connections, writer, ExportOptions(tmp_path / "b.tar"))
        for artifact in renamed.artifacts:
            export.write_decision(artifact)
        found = site.home.manifest_head(satellite_state_repository(SHOP), "latest")
        assert found
        writer.add_name(BUNDLE_STATE_REPOSITORY, "latest", found)
        writer.finish({STATE: renamed.state})

    with BundleConnections(tmp_path / "b.tar", site.local) as connections:
        assert connections.decision().is_own


def test_group_states_by_hand_are_carried_without_a_satellite_state(courier: Courier, tmp_path: Path) -> None:
    site = courier.site
    digest = site.image(APP, "one")
    raw = state_artifact_json(StateArtifact(GroupName("g"), f"https://{HOST}", (wanted(APP, digest, "v1"),), 3))
    (tmp_path / "g.json").write_bytes(raw)

    exported = courier.export(given=(str(tmp_path / "g.json"),))
    outcome = courier.bring(exported.paths[0])

    assert actions(outcome) == {"copied": ["acme/app:v1"]}
    assert [(group.group, group.generation) for group in site.store.applied().groups] == [("g", 3)]


def test_group_state_by_hand_older_than_applied_is_refused(courier: Courier, tmp_path: Path) -> None:
    site = courier.site
    bundles = []
    for generation in (1, 2):
        state = StateArtifact(GroupName("g"), f"https://{HOST}", (wanted(APP, site.image(APP, "a"), "v1"),), generation)
        (tmp_path / "g.json").write_bytes(state_artifact_json(state))
        bundles.append(courier.export(given=(str(tmp_path / "g.json"),)).paths[0])
    courier.bring(bundles[1])

    with pytest.raises(UntrustedDataError, match="went back from generation 2 to 1"):
        courier.bring(bundles[0])


def test_group_given_twice_is_refused(courier: Courier) -> None:
    courier.publish(1, [wanted(APP, courier.site.image(APP, "one"), "v1")])
    state = f"https://{HOST}/{group_state_repository(GroupName('g'))}:latest"

    with pytest.raises(UntrustedDataError, match="named twice"):
        courier.export(given=(state, state))


def test_full_bundle_lists_every_image_in_its_index(courier: Courier) -> None:
    site = courier.site
    digest = site.image(APP, "one")
    courier.publish(1, [wanted(APP, digest, "v1", "v2"), wanted(OTHER, site.image(OTHER, "two"))])

    exported = courier.export()

    with BundleRegistry(exported.paths[0]) as registry:
        assert registry.tag_list(APP) == ("v1", "v2")
        assert OTHER in registry.repository_list()
        assert registry.annotations["io.goharbor.satellite.name"] == "shop"
        assert registry.annotations["io.goharbor.satellite.incremental"] == "false"
