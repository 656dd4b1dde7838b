from __future__ import annotations

import json

import pytest

from harbor_satellite.errors import MalformedStateError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.layout_index import TAG_ANNOTATION, RepositoryIndex, parse_index

ONE, TWO = (Descriptor(media_types.OCI_MANIFEST, Digest.of(content), 3) for content in (b"one", b"two"))


def entry(descriptor: Descriptor, **annotations: str) -> dict[str, object]:
    document: dict[str, object] = {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": 3}
    return {**document, "annotations": annotations} if annotations else document


def entries_of(index: RepositoryIndex) -> list[tuple[str, str]]:
    found = json.loads(index.to_bytes())["manifests"]
    return [(each["digest"], each.get("annotations", {}).get(TAG_ANNOTATION, "")) for each in found]


def test_index_one_entry_for_each_tag_and_one_for_an_untagged_manifest() -> None:
    index = RepositoryIndex().with_manifest(ONE, ["b", "a"]).with_manifest(TWO, [])

    assert entries_of(index) == [(str(ONE.digest), "a"), (str(ONE.digest), "b"), (str(TWO.digest), "")]
    assert parse_index(index.to_bytes(), "test") == index


def test_index_tag_moves_and_old_manifest_stays() -> None:
    index = RepositoryIndex().with_manifest(ONE, ["v1"]).with_manifest(TWO, ["v1"])

    assert entries_of(index) == [(str(ONE.digest), ""), (str(TWO.digest), "v1")]


def test_index_without_tag_and_without_manifest() -> None:
    index = RepositoryIndex().with_manifest(ONE, ["a", "b"]).with_manifest(TWO, ["c"])

    assert entries_of(index.without_tag("a")) == [(str(ONE.digest), "b"), (str(TWO.digest), "c")]
    assert entries_of(index.without_manifest(ONE.digest)) == [(str(TWO.digest), "c")]


@pytest.mark.parametrize("reference", ["v1", str(ONE.digest)])
def test_index_find(reference: str) -> None:
    index = RepositoryIndex().with_manifest(ONE, ["v1"])

    assert index.find(reference) == ONE
    assert index.find("v2") is None
    assert index.find(str(TWO.digest)) is None


def test_parse_index_of_another_program_keeps_its_annotations() -> None:
    foreign = entry(ONE, **{TAG_ANNOTATION: "docker.io/library/alpine:3", "made-by": "somebody"})
    raw = json.dumps({"schemaVersion": 2, "manifests": [foreign, entry(TWO, **{TAG_ANNOTATION: "v2"})]}).encode()

    index = parse_index(raw, "test")

    assert index.tags == {"v2": TWO.digest}
    assert index.manifests[ONE.digest].annotations == {"made-by": "somebody"}


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"manifests": {}}x', b'{"manifests": [{"digest": "x"}]}'])
def test_parse_index_damaged(raw: bytes) -> None:
    with pytest.raises(MalformedStateError):
        parse_index(raw, "test")
