"""Receipts: what a registry really holds, whole or in part, and the JSON that carries it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo.images import AMD64, ARM64, layer, push_artifact, push_image, push_index, tag_image
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.copy import Copier
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.satellite.receipt import HeldRepository, Receipt, parse_receipt, receipt_json
from harbor_satellite.satellite.site_contents import read_site
from harbor_satellite.state.wire import AppliedGroup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harbor_satellite.oci.descriptor import Descriptor

APP = "acme/app"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LayoutRegistry]:
    with LayoutRegistry(tmp_path / "local", "local.test", requires_content=False) as registry:
        yield registry


def tagged(registry: LayoutRegistry, name: str, tag: str) -> Descriptor:
    image = push_image(registry, APP, AMD64, [layer(name, 2000)])
    tag_image(registry, APP, tag, image)
    return image


def receipt_of(registry: LayoutRegistry) -> Receipt:
    contents = read_site(registry)
    return Receipt(repositories=contents.repositories, blobs=contents.largest_blobs())


def test_read_site_names_whole_images_with_their_blobs(local: LayoutRegistry) -> None:
    image = tagged(local, "one", "v1")

    receipt = receipt_of(local)

    assert receipt.holds_manifest(APP, image.digest, ())
    assert not receipt.holds_manifest("acme/other", image.digest, ())
    assert layer("one", 2000).descriptor.digest in receipt.blobs


def test_read_site_image_with_lost_layer_is_not_held_but_its_other_blobs_are(local: LayoutRegistry) -> None:
    lost, kept = layer("lost", 2000), layer("kept", 2000)
    image = push_image(local, APP, AMD64, [lost, kept])
    tag_image(local, APP, "v1", image)
    (local.root / APP / "blobs" / "sha256" / lost.descriptor.digest.hex).unlink()

    receipt = receipt_of(local)

    assert not receipt.holds_manifest(APP, image.digest, ())
    assert lost.descriptor.digest not in receipt.blobs
    assert kept.descriptor.digest in receipt.blobs


def test_read_site_names_referrers_of_what_is_tagged(local: LayoutRegistry) -> None:
    artifact, sbom = push_artifact(local, APP, "chart")

    receipt = receipt_of(local)

    assert receipt.holds_manifest(APP, artifact.digest, ())
    assert receipt.holds_manifest(APP, sbom.digest, ())


def test_read_site_sparse_index_is_held_for_its_platforms_only(tmp_path: Path, local: LayoutRegistry) -> None:
    with LayoutRegistry(tmp_path / "centre", "centre.test") as centre:
        children = [push_image(centre, APP, platform, [layer(str(platform), 2000)]) for platform in (AMD64, ARM64)]
        index = push_index(centre, APP, "v1", children)
        Copier(centre, local, platforms=(AMD64,)).stage(APP, index.digest, ())
    tag_image(local, APP, "v1", index)

    receipt = receipt_of(local)

    assert receipt.holds_manifest(APP, index.digest, (AMD64,))
    assert not receipt.holds_manifest(APP, index.digest, (AMD64, ARM64))
    assert not receipt.holds_manifest(APP, index.digest, ())
    assert receipt.holds_manifest(APP, children[0].digest, ())
    assert not receipt.holds_manifest(APP, children[1].digest, ())


def test_read_site_whole_index_is_held_for_all_platforms(local: LayoutRegistry) -> None:
    children = [push_image(local, APP, platform, [layer(str(platform), 2000)]) for platform in (AMD64, ARM64)]
    index = push_index(local, APP, "v1", children)

    receipt = receipt_of(local)

    assert receipt.holds_manifest(APP, index.digest, ())
    assert receipt.holds_manifest(APP, index.digest, (AMD64,))


def test_receipt_survives_its_json(local: LayoutRegistry) -> None:
    tagged(local, "one", "v1")
    sparse = {Digest.of(b"index"): (ARM64,)}
    receipt = receipt_of(local)
    receipt = replace(
        receipt,
        satellite="shop",
        state="https://centre.test/satellite/satellite-state/shop/state:latest",
        made_at=datetime(2026, 1, 2, tzinfo=UTC),
        groups=(AppliedGroup(group="g", generation=7, digest=str(Digest.of(b"g"))),),
        platforms=(AMD64,),
        repositories={**receipt.repositories, "acme/sparse": HeldRepository(frozenset(), sparse)},
    )

    assert parse_receipt(receipt_json(receipt), "a receipt") == receipt


def test_receipt_of_a_thousand_images_stays_compact() -> None:
    digests = [Digest.of(str(number).encode()) for number in range(10_000)]
    repositories = {
        f"acme/app-{number}": HeldRepository(frozenset(digests[number : number + 1])) for number in range(1000)
    }
    receipt = Receipt(repositories=repositories, blobs=frozenset(digests))

    assert len(receipt_json(receipt)) < 1_000_000


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": "another"}',
        b"[" * 100_000,
        receipt_json(Receipt()).replace(b'"blobs": []', b'"blobs": ["sha256:no"]'),
        receipt_json(Receipt()).replace(b'"groups": []', b'"groups": [{"generation": -1}]'),
        receipt_json(Receipt()).replace(b'"repositories": {\n}', b'"repositories": {"../..": {"manifests": []}}'),
    ],
    ids=["empty", "list", "object", "format", "deep", "digest", "group", "repository"],
)
def test_parse_receipt_refuses_what_is_none(raw: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"shop\.json is no receipt"):
        parse_receipt(raw, "shop.json")
