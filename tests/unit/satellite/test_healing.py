"""Healing on layouts: where good bytes come from, what is left when they cannot be had, and what stays on record."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import pytest

from harbor_satellite.demo.images import AMD64, layer, push_image, push_index
from harbor_satellite.errors import ConflictError, DigestMismatchError, PausedError, RemoteError, StorageError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.satellite.findings import load_last_audit
from harbor_satellite.satellite.good_bytes import GoodBytes
from harbor_satellite.satellite.healing import heal_site, leave_findings, lock_patiently, make_healer, needs_healing
from harbor_satellite.satellite.healing_journal import HeldManifest, Journal, drop_journal, load_journal, save_journal
from harbor_satellite.satellite.holders import Holders
from harbor_satellite.satellite.replacing import Replacement
from harbor_satellite.state.desired import LocalTag
from tests.unit.satellite.site import OPTIONS, STATE_URL, Local, Site, wanted
from tests.unit.satellite.test_audit import APP, audit, damage, file_of, fill

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.satellite.findings import AuditReport

SHARED = layer("same", 2000)


def share(site: Site) -> None:
    """Replicate two images with one layer, each with a file of its own."""
    names = ("acme/one", "acme/two")
    site.publish({"stores": [wanted(name, site.image(name, "same", "v1"), "v1") for name in names]})
    site.sync()
    path = file_of(site, "acme/two", SHARED.descriptor.digest)
    path.unlink()
    path.write_bytes(SHARED.content)


def heal(site: Site) -> AuditReport:
    return heal_site(site.engine(), audit(site))


def test_heal_blob_comes_from_the_source_and_the_engine_finds_nothing_to_do(site: Site) -> None:
    layers = fill(site)
    record = site.store.applied()
    damage(site, layers[0])

    report = heal(site)

    assert [finding.is_healed for finding in report.findings] == [True]
    assert report.bytes_from_source == report.findings[0].size
    assert audit(site).findings == ()
    assert site.store.applied() == record
    assert site.engine().check(STATE_URL) is None


def test_heal_blob_whole_in_another_repository_needs_no_source(site: Site) -> None:
    share(site)
    damage(site, SHARED.descriptor.digest, b"short", "acme/two")

    report = heal(site)

    assert [finding.is_healed for finding in report.findings] == [True]
    assert report.bytes_from_source == 0
    assert audit(site).findings == ()


def test_heal_missing_manifest_brings_all_that_is_gone_with_it(site: Site) -> None:
    fill(site, 1)
    image = site.local.manifest_get("acme/a0", "v1").digest
    for path in list((site.local.root / "acme/a0/blobs/sha256").iterdir()):
        path.unlink()

    heal(site)
    report = heal(site)

    assert report.damaged == ()
    assert site.local.manifest_get("acme/a0", "v1").digest == image
    assert audit(site).findings == ()


def test_heal_tag_gone_or_moved_is_put_back(site: Site) -> None:
    fill(site, 2)
    digests = {name: site.local.manifest_get(name, "v1").digest for name in ("acme/a0", "acme/a1")}
    site.local.manifest_delete("acme/a0", "v1")
    foreign = ManifestContent(media_types.OCI_INDEX, b'{"schemaVersion":2,"manifests":[]}')
    site.local.manifest_put("acme/a1", "v1", foreign)

    report = heal(site)

    assert [finding.is_healed for finding in report.findings] == [True, True]
    assert {name: site.local.manifest_get(name, "v1").digest for name in digests} == digests


def test_heal_settled_meanwhile_is_left_out(site: Site) -> None:
    layers = fill(site)
    raw = file_of(site, "acme/a0", layer("acme/a0", 2000).descriptor.digest).read_bytes()
    damage(site, layer("acme/a0", 2000).descriptor.digest)
    report = audit(site)
    file_of(site, "acme/a0", layer("acme/a0", 2000).descriptor.digest).write_bytes(raw)
    damage(site, layer("acme/a1", 2000).descriptor.digest)
    gone = audit(site).findings
    owned = {name: digests for name, digests in site.store.applied().owned.items() if name.repository != "acme/a1"}
    site.store.save_applied(replace(site.store.applied(), owned=owned, wanted={}))

    healed = heal_site(site.engine(), replace(report, findings=(*report.findings, *gone)))

    assert len(layers) > 1
    assert healed.findings == ()


def test_heal_paused_link_leaves_it_for_the_next_audit(site: Site) -> None:
    layers = fill(site)
    damage(site, layers[0])
    engine = site.engine()
    healer = make_healer(engine)

    def closed() -> None:
        raise PausedError("outside the sync windows")

    healer.good.check_link = closed
    healed = healer.heal_all(audit(site).findings)

    assert [(finding.is_healed, "outside the sync windows" in finding.note) for finding in healed] == [(False, True)]


def test_heal_no_room_says_so_and_fetches_nothing(site: Site) -> None:
    layers = fill(site)
    damage(site, layers[0])
    engine = site.engine(replace(OPTIONS, disk_reserve_bytes=10**18))

    report = heal_site(engine, audit(site))

    assert "in reserve" in report.findings[0].note
    assert report.bytes_from_source == 0


def test_heal_audit_is_kept_with_what_became_of_it(site: Site) -> None:
    layers = fill(site)
    damage(site, layers[0])

    report = heal(site)

    kept = load_last_audit(site.store)
    assert kept is not None
    assert kept.findings == report.findings
    assert not needs_healing(site.store, kept)


def test_leave_findings_keeps_them_for_the_next_audit(site: Site) -> None:
    layers = fill(site)
    damage(site, layers[0])

    leave_findings(site.store, audit(site), "not now")

    kept = load_last_audit(site.store)
    assert kept is not None
    assert [finding.note for finding in kept.damaged] == ["not now"]


def test_lock_patiently_waits_for_a_replication_and_then_gives_up(site: Site) -> None:
    waits: list[float] = []
    with site.store.lock(), pytest.raises(ConflictError), lock_patiently(site.store, 0.0, waits.append):
        pass

    held = ExitStack()
    held.enter_context(site.store.lock())
    with (
        lock_patiently(site.store, 60.0, lambda _: held.close()),
        pytest.raises(ConflictError),
        site.store.lock(),
    ):
        pass

    assert waits == []


class Cut:
    """The centre behind a link that is cut in the middle of a blob, once."""

    def __init__(self, site: Site) -> None:
        self.offsets: list[int] = []
        self._blob_get = site.home.blob_get
        site.home.blob_get = self.blob_get  # type: ignore[method-assign, assignment]

    def blob_get(self, repository: str, digest: Digest, offset: int = 0) -> object:
        self.offsets.append(offset)
        return (
            self._blob_get(repository, digest, offset)
            if len(self.offsets) > 1
            else _CutStream(self, repository, digest)
        )

    def half(self, repository: str, digest: Digest) -> bytes:
        with self._blob_get(repository, digest) as stream:
            raw = b"".join(stream)
        return raw[: len(raw) // 2]


class _CutStream:
    """Half a blob."""

    offset = 0

    def __init__(self, cut: Cut, repository: str, digest: Digest) -> None:
        self._half = cut.half(repository, digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        yield self._half
        raise RemoteError("the link is cut", retryable=True)


def test_good_bytes_go_on_after_a_cut(site: Site) -> None:
    layers = fill(site, 1)
    damage(site, layers[0])
    cut = Cut(site)

    report = heal(site)

    size = layer("acme/a0", 2000).descriptor.size
    assert report.damaged == ()
    assert cut.offsets == [0, size // 2]
    assert report.bytes_from_source == size


def test_good_bytes_wrong_leftover_is_thrown_away(site: Site) -> None:
    fill(site, 1)
    item = layer("acme/a0", 2000).descriptor
    good = GoodBytes(site.connections, site.store.folder, reserve_bytes=0)
    path = site.store.folder / "healing" / item.digest.hex
    path.parent.mkdir()
    path.write_bytes(b"x" * item.size)

    fetched = good.blob(item.digest, item.size, (LocalTag("acme/a0", "v1"),), ())

    assert Digest.of(fetched.read_bytes()) == item.digest


def test_good_bytes_wrong_at_the_source_leave_nothing_behind(site: Site) -> None:
    fill(site, 1)
    item = layer("acme/a0", 2000).descriptor
    (site.home.root / "acme/a0/blobs/sha256" / item.digest.hex).write_bytes(b"x" * item.size)
    good = GoodBytes(site.connections, site.store.folder, reserve_bytes=0)

    with pytest.raises(DigestMismatchError):
        good.blob(item.digest, item.size, (LocalTag("acme/a0", "v1"),), ())

    assert list((site.store.folder / "healing").iterdir()) == []


def journal_of(raw: bytes = b"{}") -> Journal:
    content = ManifestContent(media_types.OCI_MANIFEST, raw)
    held = HeldManifest(APP, content.digest, content, ("mine", "v1"), ("v1",))
    return Journal(Digest.of(b"blob"), 4, (APP, "acme/web"), (held,))


def test_journal_is_read_as_it_was_written(site: Site) -> None:
    save_journal(site.store, journal_of())

    assert load_journal(site.store) == journal_of()
    drop_journal(site.store)
    assert load_journal(site.store) is None


def test_journal_with_changed_bytes_is_not_believed(site: Site) -> None:
    save_journal(site.store, journal_of())
    document = site.store.read_document("healing.json")
    assert document is not None
    document["manifests"][0]["raw"] = "e30K"
    site.store.write_document("healing.json", document)

    with pytest.raises(StorageError, match=r"healing\.json is damaged"):
        load_journal(site.store)


class Watched(Local):
    """The site's registry, which writes down what is asked of it."""

    asked: list[str]

    def blob_put(self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        def watched() -> Iterator[bytes]:
            for chunk in chunks:
                self.asked.append("piece")
                yield chunk

        super().blob_put(repository, descriptor, watched())

    def manifest_delete(self, repository: str, reference: str) -> bool:
        self.asked.append("delete manifest")
        return super().manifest_delete(repository, reference)

    def blob_delete(self, repository: str, digest: Digest) -> bool:
        was_there = super().blob_delete(repository, digest)
        self.asked.append("delete blob")
        return was_there


def test_replacement_takes_away_only_when_all_but_the_last_piece_has_arrived(site: Site) -> None:
    item = layer("large", 2_500_000)
    push_image(site.home, APP, AMD64, [item])
    image = push_image(site.local, APP, AMD64, [item])
    site.local.manifest_put(APP, "by-hand", site.local.manifest_get(APP, str(image.digest)))
    good = site.home.root / APP / "blobs/sha256" / item.descriptor.digest.hex
    held = Holders(site.local).of(item.descriptor.digest)
    journal = Journal(item.descriptor.digest, item.descriptor.size, (APP,), held)
    site.local.__class__ = Watched
    site.local.asked = []  # type: ignore[attr-defined]

    Replacement(site.local, site.store, journal, (APP,)).replace_blob(good)

    asked = site.local.asked  # type: ignore[attr-defined]
    assert asked == ["piece", "piece", "delete manifest", "delete blob", "piece"]
    assert site.local.manifest_get(APP, "by-hand").digest == image.digest
    assert load_journal(site.store) is None


def test_holders_give_children_before_their_indexes_and_every_tag(site: Site) -> None:
    child = push_image(site.local, APP, AMD64, [layer("child", 100)])
    index = push_index(site.local, APP, "v1", [child])
    site.local.manifest_put(APP, "mine", site.local.manifest_get(APP, str(child.digest)))
    site.local.manifest_put(APP, "also", site.local.manifest_get(APP, str(index.digest)))

    held = Holders(site.local).of(layer("child", 100).descriptor.digest)

    assert [(item.digest, item.tags) for item in held] == [(child.digest, ("mine",)), (index.digest, ("also", "v1"))]


def test_replacement_refused_half_way_puts_back_what_was_taken_away(site: Site) -> None:
    item = layer("large", 1000)
    image = push_image(site.local, APP, AMD64, [item])
    site.local.manifest_put(APP, "by-hand", site.local.manifest_get(APP, str(image.digest)))
    site.local.blob_mount("acme/web", item.descriptor.digest, APP)
    source = site.folder / "good"
    source.write_bytes(item.content)
    held = Holders(site.local).of(item.descriptor.digest)
    journal = Journal(item.descriptor.digest, len(item.content), (APP, "acme/web"), held)

    class Refusing(Local):
        def blob_delete(self, repository: str, digest: Digest) -> bool:
            if repository == "acme/web":
                raise RemoteError("the registry fails", status=500)
            return super().blob_delete(repository, digest)

    site.local.__class__ = Refusing
    with pytest.raises(RemoteError, match="the registry fails"):
        Replacement(site.local, site.store, journal, (APP, "acme/web")).replace_blob(source)

    assert site.local.manifest_get(APP, "by-hand").digest == image.digest
    assert site.local.blob_head(APP, item.descriptor.digest) == len(item.content)
    assert load_journal(site.store) is None
