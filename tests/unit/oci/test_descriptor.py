from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, MalformedStateError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import (
    Descriptor,
    descriptor_json,
    index_bytes,
    parse_descriptor,
    parse_manifest,
)
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform

DIGEST = Digest.of(b"content")
PART = {"mediaType": "application/x", "digest": str(DIGEST), "size": 7}
EVERY_KIND = sorted(media_types.MANIFESTS)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(str(DIGEST)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def image(**more: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": PART, **more}).encode()


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_parse_manifest_kind_from_inside_or_content_type(kind: str) -> None:
    inside = parse_manifest(json.dumps({"mediaType": kind}).encode(), "", "it")
    outside = parse_manifest(b"{}", f"{kind}; charset=utf-8", "it")

    assert inside.media_type == outside.media_type == kind
    assert inside.is_index is (kind in media_types.INDEXES)


def test_parse_manifest_image_names_each_blob_once() -> None:
    layers = [PART, {**PART, "digest": str(Digest.of(b"other"))}, PART]

    manifest = parse_manifest(image(layers=layers, subject=PART, annotations={"a": "b"}), "", "it")

    assert [blob.digest for blob in manifest.blobs] == [DIGEST, Digest.of(b"other")]
    assert manifest.subject == Descriptor("application/x", DIGEST, 7)
    assert manifest.annotations == {"a": "b"}


def test_parse_manifest_index_keeps_platforms_in_order() -> None:
    children = [
        {**PART, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
        {**PART, "platform": {"os": "linux", "architecture": "amd64"}},
        PART,
    ]
    raw = json.dumps({"mediaType": media_types.OCI_INDEX, "manifests": children}).encode()

    manifest = parse_manifest(raw, "", "it")

    found = [child.platform for child in manifest.manifests]
    assert found == [Platform("linux", "arm", "v7"), Platform("linux", "amd64"), None]


@pytest.mark.parametrize(
    ("more", "kind"),
    [({}, "application/x"), ({"artifactType": "application/y"}, "application/y")],
    ids=["type of the config", "artifact type first"],
)
def test_manifest_referrer_type(more: dict[str, str], kind: str) -> None:
    assert parse_manifest(image(**more), "", "it").referrer_type == kind


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 5000,
        image(layers=5),
        image(layers=[5]),
        image(layers=["text"]),
        image(layers=[None]),
        image(layers=[{}]),
        image(layers={"a": PART}),
        image(config=[]),
        image(config={**PART, "size": True}),
        image(config={**PART, "size": -1}),
        image(config={**PART, "size": 7.0}),
        image(config={**PART, "size": "7"}),
        image(config={**PART, "digest": 5}),
        image(config={**PART, "digest": ["sha256:"]}),
        image(config={**PART, "digest": "sha256:../../etc"}),
        image(config={**PART, "mediaType": 5}),
        image(config={**PART, "platform": "linux"}),
        image(config={**PART, "annotations": ["a"]}),
        image(artifactType={"a": 1}),
        image(annotations="text"),
        image(subject="text"),
        image(manifests=[{**PART, "digest": None}]),
    ],
    ids=lambda raw: raw[-60:].decode(errors="replace"),
)
def test_parse_manifest_malformed_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedStateError, match="acme/app"):
        parse_manifest(raw, media_types.OCI_MANIFEST, "acme/app")


@pytest.mark.parametrize(
    ("inside", "content_type"),
    [
        (media_types.OCI_INDEX, media_types.OCI_MANIFEST),
        (media_types.DOCKER_MANIFEST, media_types.OCI_MANIFEST),
        ("application/x", media_types.OCI_MANIFEST),
    ],
)
def test_parse_manifest_content_type_contradicts_is_refused(inside: str, content_type: str) -> None:
    raw = json.dumps({"mediaType": inside}).encode()

    with pytest.raises(MalformedStateError, match="was sent as"):
        parse_manifest(raw, content_type, "it")


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.oci.artifact.manifest.v1+json",
    ],
    ids=["none", "plain JSON", "schema 1", "withdrawn artifact manifest"],
)
def test_parse_manifest_unknown_kind_is_refused(kind: str) -> None:
    with pytest.raises(MalformedStateError, match="of a kind that is not copied"):
        parse_manifest(b"{}", kind, "it")


@pytest.mark.parametrize("kind", [["x"], {"x": 1}], ids=["list", "object"])
def test_parse_manifest_kind_is_no_text_is_refused(kind: object) -> None:
    with pytest.raises(MalformedStateError):
        parse_manifest(json.dumps({"mediaType": kind}).encode(), "", "it")


@given(st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_parse_manifest_any_bytes_leak_nothing_else(raw: bytes) -> None:
    try:
        parse_manifest(raw, media_types.OCI_INDEX, "it")
    except HarborSatelliteError:
        return


@given(
    st.dictionaries(
        st.sampled_from(["config", "layers", "manifests", "subject", "annotations", "artifactType"]), JSON_VALUES
    )
)
def test_parse_manifest_any_parts_leak_nothing_else(parts: dict[str, Any]) -> None:
    try:
        parse_manifest(json.dumps(parts).encode(), media_types.OCI_INDEX, "it")
    except HarborSatelliteError:
        return


@given(st.dictionaries(st.sampled_from([*PART, "platform", "artifactType", "annotations"]), JSON_VALUES) | JSON_VALUES)
def test_parse_descriptor_any_value_leaks_nothing_else(value: Any) -> None:
    try:
        parse_descriptor(value)
    except HarborSatelliteError:
        return


@pytest.mark.parametrize(
    "descriptor",
    [
        Descriptor("application/x", DIGEST, 0),
        Descriptor("application/x", DIGEST, 7, Platform("linux", "arm", "v7"), "application/y", {"a": "b"}),
    ],
    ids=["least", "most"],
)
def test_descriptor_json_then_parse_gives_same(descriptor: Descriptor) -> None:
    again = parse_descriptor(json.loads(json.dumps(descriptor_json(descriptor))))

    assert again == descriptor


def test_parse_descriptor_missing_size_names_it() -> None:
    with pytest.raises(InvalidInputError, match="size"):
        parse_descriptor({"mediaType": "application/x", "digest": str(DIGEST)})


def test_index_bytes_is_an_index_that_parses() -> None:
    descriptor = Descriptor(media_types.OCI_MANIFEST, DIGEST, 7)

    assert parse_manifest(index_bytes([descriptor]), "", "it").manifests == (descriptor,)


@pytest.mark.parametrize(
    ("media_type", "is_it"),
    [
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", True),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", True),
        (media_types.OCI_LAYER_GZIP, False),
        ("", False),
    ],
)
def test_is_nondistributable(media_type: str, is_it: bool) -> None:  # noqa: FBT001 - a column of the table
    assert media_types.is_nondistributable(media_type) is is_it
