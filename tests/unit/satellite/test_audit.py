"""Audits of a site on layouts: what is looked at, in which order, and what counts as damaged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo.images import AMD64, ARM64, layer, push_image, push_index
from harbor_satellite.errors import RemoteError, StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.audit import AuditOptions, Cursor, Pace, audit_site, load_cursor
from harbor_satellite.satellite.findings import AuditReport, Damage, load_last_audit, save_last_audit
from harbor_satellite.state.desired import LocalTag
from tests.unit.satellite.site import Site, wanted

if TYPE_CHECKING:
    from pathlib import Path

APP = "acme/app"
EVERYTHING = AuditOptions(budget_bytes=None)
COUNT = 4


def fill(site: Site, count: int = COUNT) -> list[Digest]:
    """Replicate images, each with a layer of its own; give the layers' digests in the order of reading."""
    names = [f"acme/a{number}" for number in range(count)]
    entries = [wanted(name, site.image(name, name, "v1"), "v1") for name in names]
    site.publish({"stores": entries})
    assert site.sync().is_converged
    return sorted((layer(name, 2000).descriptor.digest for name in names), key=str)


def file_of(site: Site, repository: str, digest: Digest) -> Path:
    return site.local.root / repository / "blobs" / digest.algorithm / digest.hex


def repository_of(site: Site, digest: Digest) -> str:
    return next(each for each in site.local.repository_list() if file_of(site, each, digest).exists())


def damage(site: Site, digest: Digest, content: bytes | None = None, repository: str = "") -> None:
    path = file_of(site, repository or repository_of(site, digest), digest)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw) if content is None else content)


def audit(site: Site, options: AuditOptions = EVERYTHING) -> AuditReport:
    report = audit_site(site.local, site.store, options)
    save_last_audit(site.store, report)
    return report


def found(report: AuditReport) -> list[tuple[str, Damage, Digest]]:
    return [(finding.subject, finding.damage, finding.digest) for finding in report.findings]


def test_audit_whole_site_reads_everything_and_asks_the_source_nothing(site: Site) -> None:
    layers = fill(site)
    site.home.requests = 0

    report = audit(site)

    assert report.findings == ()
    assert report.is_whole
    assert report.bytes_read > sum(layer(f"acme/a{n}", 2000).descriptor.size for n in range(COUNT))
    assert report.blobs_known == len(layers) + COUNT
    assert site.home.requests == 0


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, Damage.WRONG_BYTES),
        (b"short", Damage.WRONG_SIZE),
        (b"", Damage.WRONG_SIZE),
        (b"x" * 99_999, Damage.WRONG_SIZE),
    ],
    ids=["flipped", "truncated", "empty", "too long"],
)
def test_audit_damaged_blob_says_what_it_hits(site: Site, content: bytes | None, kind: Damage) -> None:
    layers = fill(site)
    repository = repository_of(site, layers[2])
    damage(site, layers[2], content)

    report = audit(site)

    assert found(report) == [("blob", kind, layers[2])]
    assert report.findings[0].repositories == (repository,)
    assert report.findings[0].images == (LocalTag(repository, "v1"),)


def test_audit_damaged_manifest_is_found_without_hiding_the_rest(site: Site) -> None:
    layers = fill(site)
    manifest = site.local.manifest_get("acme/a0", "v1").digest
    other = next(digest for digest in layers if repository_of(site, digest) != "acme/a0")
    damage(site, manifest, repository="acme/a0")
    damage(site, other)

    report = audit(site)

    assert found(report) == [("manifest", Damage.WRONG_BYTES, manifest), ("blob", Damage.WRONG_BYTES, other)]


def test_audit_budget_reads_each_blob_once_over_several_runs(site: Site) -> None:
    fill(site)
    size = layer("acme/a0", 2000).descriptor.size
    reports = []

    while load_cursor(site.store).round == 0:
        reports.append(audit(site, AuditOptions(budget_bytes=2 * size)))

    known = reports[0].blobs_known
    assert len(reports) > 2
    assert sum(report.blobs_read for report in reports[:-1]) <= known < sum(report.blobs_read for report in reports)
    assert not any(report.is_whole for report in reports)


def test_audit_budget_smaller_than_a_blob_still_goes_on(site: Site) -> None:
    layers = fill(site)
    damage(site, layers[-1])

    reports = [audit(site, AuditOptions(budget_bytes=1)) for _ in range(2 * COUNT)]

    assert all(report.blobs_read == 1 for report in reports)
    assert [item for report in reports for item in found(report)] == [("blob", Damage.WRONG_BYTES, layers[-1])] * sum(
        bool(report.findings) for report in reports
    )
    assert any(report.findings for report in reports)


def test_audit_new_state_goes_on_where_the_last_one_stopped(site: Site) -> None:
    fill(site)
    audit(site, AuditOptions(budget_bytes=2 * 2300))
    before = load_cursor(site.store)
    digest = site.image("acme/new", "new", "v1")
    names = [f"acme/a{number}" for number in range(COUNT)]
    kept = [wanted(name, site.local.manifest_get(name, "v1").digest, "v1") for name in names]
    site.publish({"stores": [*kept, wanted("acme/new", digest, "v1")]})
    site.sync()

    report = audit(site, AuditOptions(budget_bytes=1))

    after = load_cursor(site.store)
    assert report.blobs_read == 1
    assert before.after < after.after
    assert after.round == before.round == 0


def test_audit_end_reached_begins_another_round(site: Site) -> None:
    fill(site)

    for _ in range(2):
        audit(site)

    assert load_cursor(site.store).round == 1


def test_audit_cursor_damaged_begins_anew(site: Site) -> None:
    fill(site)
    site.store.write_document("audit-cursor.json", {"after": "", "round": "many"})

    assert load_cursor(site.store) == Cursor()
    assert audit(site).is_whole


def test_audit_left_damage_is_looked_at_first_whatever_the_cursor(site: Site) -> None:
    layers = fill(site)
    damage(site, layers[0])
    audit(site)

    again = audit(site, AuditOptions(budget_bytes=1))

    assert again.blobs_read == 1
    assert found(again) == [("blob", Damage.WRONG_BYTES, layers[0])]


def test_audit_short_blob_is_found_although_the_budget_does_not_reach_it(site: Site) -> None:
    layers = fill(site)
    damage(site, layers[-1], b"short")

    report = audit(site, AuditOptions(budget_bytes=1))

    assert found(report) == [("blob", Damage.WRONG_SIZE, layers[-1])]


def test_audit_shared_blob_is_read_once_and_every_copy_has_its_turn(site: Site) -> None:
    names = ["acme/one", "acme/two"]
    site.publish({"stores": [wanted(name, site.image(name, "same", "v1"), "v1") for name in names]})
    site.sync()
    shared = layer("same", 2000).descriptor
    second = file_of(site, "acme/two", shared.digest)
    raw = bytearray(second.read_bytes())
    second.unlink()  # a file of its own, as after a restore from a backup
    raw[0] ^= 1
    second.write_bytes(raw)

    reports = [audit(site) for _ in range(2)]

    assert found(reports[0]) == []
    assert reports[0].bytes_read < 2 * shared.size
    assert [finding.repositories for finding in reports[1].findings] == [("acme/two",)]


def test_audit_tag_gone_or_moved_by_hand_is_found(site: Site) -> None:
    fill(site, 2)
    digests = {name: site.local.manifest_get(name, "v1").digest for name in ("acme/a0", "acme/a1")}
    site.local.manifest_delete("acme/a0", "v1")
    other = push_image(site.local, "acme/a1", AMD64, [layer("by hand", 100)])
    site.local.manifest_put("acme/a1", "v1", site.local.manifest_get("acme/a1", str(other.digest)))

    report = audit(site)

    assert found(report) == [
        ("tag", Damage.TAG_GONE, digests["acme/a0"]),
        ("tag", Damage.TAG_MOVED, digests["acme/a1"]),
    ]
    assert str(other.digest) in report.findings[1].note


def test_audit_wanted_and_never_arrived_is_replications_business(site: Site) -> None:
    fill(site, 1)
    record = site.store.applied()
    site.store.save_applied(replace(record, wanted={**record.wanted, LocalTag(APP, "v1"): Digest.of(b"to come")}))

    assert audit(site).findings == ()


def test_audit_put_there_by_somebody_else_and_wanted_is_looked_at(site: Site) -> None:
    layers = fill(site, 1)
    site.store.save_applied(replace(site.store.applied(), owned={}))
    damage(site, layers[0])

    assert found(audit(site)) == [("blob", Damage.WRONG_BYTES, layers[0])]


def test_audit_previous_generation_is_looked_at(site: Site) -> None:
    old = site.image(APP, "old", "v1")
    site.publish({"stores": [wanted(APP, old, "v1")]})
    site.sync()
    site.publish({"stores": [wanted(APP, site.image(APP, "new", "v1"), "v1")]})
    site.sync()
    digest = layer("old", 2000).descriptor.digest
    damage(site, digest)

    assert found(audit(site)) == [("blob", Damage.WRONG_BYTES, digest)]


def test_audit_sparse_index_looks_at_the_platforms_that_were_brought(site: Site) -> None:
    children = [push_image(site.home, APP, each, [layer(str(each), 2000)]) for each in (AMD64, ARM64)]
    index = push_index(site.home, APP, "v1", children)
    site.publish({"stores": [wanted(APP, index.digest, "v1")]})
    platforms = (AMD64,)
    site.sync(replace(site.engine().options, platforms=platforms))
    options = AuditOptions(budget_bytes=None, platforms=platforms)

    assert audit(site, options).findings == ()
    site.local.manifest_delete(APP, "v1")
    file_of(site, APP, children[0].digest).unlink()

    assert ("manifest", Damage.MISSING, children[0].digest) in found(audit(site, options))


def test_audit_taken_away_by_a_replication_meanwhile_is_no_damage(site: Site) -> None:
    fill(site, 2)
    (name,) = (each for each in site.store.applied().owned if each.repository == "acme/a0")

    class Busy(type(site.local)):  # type: ignore[misc]
        def blob_head(self, repository: str, digest: Digest) -> int | None:
            if repository == "acme/a0" and name in site.store.applied().owned:
                site.local.manifest_delete("acme/a0", str(site.store.applied().wanted[name]))
                site.local.garbage_collect(older_than_seconds=-60.0)
                record = site.store.applied()
                owned = {each: digests for each, digests in record.owned.items() if each != name}
                wanted = {each: digest for each, digest in record.wanted.items() if each != name}
                site.store.save_applied(replace(record, owned=owned, wanted=wanted))
            return super().blob_head(repository, digest)

    site.local.__class__ = Busy
    report = audit(site)

    assert name not in site.store.applied().owned
    assert report.findings == ()


class BrokenError(Exception):
    """Stands for a bug."""


def test_audit_killed_reader_keeps_its_place(site: Site) -> None:
    fill(site)
    pace = Pace(None)
    seen: list[int] = []

    def count(size: int) -> None:
        seen.append(size)
        if len(seen) == 4:
            raise BrokenError

    pace.count = count  # type: ignore[method-assign]
    with pytest.raises(BrokenError):
        audit_site(site.local, site.store, EVERYTHING, pace)

    assert load_cursor(site.store).after != ""
    assert load_cursor(site.store).round == 0


def test_audit_registry_gone_is_no_damage(site: Site) -> None:
    fill(site)

    class Gone(type(site.local)):  # type: ignore[misc]
        def blob_get(self, repository: str, digest: Digest, offset: int = 0) -> object:
            raise RemoteError("connection refused", retryable=True)

        def blob_head(self, repository: str, digest: Digest) -> int | None:
            raise RemoteError("connection refused", retryable=True)

    site.local.__class__ = Gone
    with pytest.raises(RemoteError, match="connection refused"):
        audit_site(site.local, site.store, EVERYTHING)


def test_audit_blob_that_cannot_be_read_twice_is_unreadable(site: Site) -> None:
    layers = fill(site, 1)

    class BadSector(type(site.local)):  # type: ignore[misc]
        def blob_get(self, repository: str, digest: Digest, offset: int = 0) -> object:
            if digest == layers[0]:
                raise RemoteError("input/output error", status=500)
            return super().blob_get(repository, digest, offset)

    site.local.__class__ = BadSector

    assert found(audit(site)) == [("blob", Damage.UNREADABLE, layers[0])]


def test_pace_waits_for_what_came_too_soon() -> None:
    waits: list[float] = []
    pace = Pace(100, clock=lambda: 1.0, sleep=waits.append)

    pace.count(50)
    pace.count(50)

    assert waits == [0.5, 1.0]
    assert pace.bytes_read == 100


def test_last_audit_is_read_as_it_was_written(site: Site) -> None:
    layers = fill(site)
    damage(site, layers[1])
    report = audit(site)

    loaded = load_last_audit(site.store)

    assert loaded is not None
    assert loaded == replace(report, seconds=loaded.seconds)
    assert round(report.seconds, 3) == loaded.seconds


def test_last_audit_damaged_is_said(site: Site) -> None:
    site.store.write_document("audit.json", {"finished_at": "yesterday"})

    with pytest.raises(StorageError, match=r"audit\.json is damaged"):
        load_last_audit(site.store)
