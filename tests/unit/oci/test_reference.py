from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import Reference, check_repository, check_tag, reference_kind

DIGEST = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("acme/app", "docker.io/acme/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("docker.io/acme/app:1", "docker.io/acme/app:1"),
        ("ghcr.io/app", "ghcr.io/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        ("host:5000/a/b:1", "host:5000/a/b:1"),
        ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a:1"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        (f"host:5000/a:1@{DIGEST}", f"host:5000/a:1@{DIGEST}"),
        ("https://harbor.example/satellite/a/state:1", "harbor.example/satellite/a/state:1"),
        ("http://host:5000/a", "host:5000/a:latest"),
        ("oci://harbor.example/a/chart:1.0.0", "harbor.example/a/chart:1.0.0"),
        ("Harbor.Example/a", "Harbor.Example/a:latest"),
        ("acme/app:V1_x.Y-z", "docker.io/acme/app:V1_x.Y-z"),
    ],
)
def test_reference_parse_as_people_write_it(text: str, whole: str) -> None:
    assert str(Reference.parse(text)) == whole


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "https://",
        "a b",
        "acme/../app",
        "../app",
        "host:5000/../../etc/passwd:1",
        "host:5000/a/./b",
        "acme//app",
        "/app",
        "acme/app/",
        "acme/App:1",
        "HOST/a/b",
        "host_name.example/a",
        "user:password@host:5000/a",
        "host:port/a",
        "acme/app:1:2",
        "acme/app:-1",
        "acme/app:" + "a" * 129,
        "acme/app:1\n",
        "acme/app@sha256:12",
        f"acme/app@{DIGEST}@{DIGEST}",
        "host:5000/" + "a" * 256,
        "acme/a__b___c",
        "acme/-app",
        "acme/app%2f..",
    ],
)
def test_reference_parse_broken_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Reference.parse(text)


@pytest.mark.parametrize("text", ["acme/app@", "acme/app:", "acme/app:@" + DIGEST])
def test_reference_parse_empty_tag_or_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Reference.parse(text)


def test_reference_parse_port_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        Reference.parse("host:65536/app")


@given(st.text(alphabet="aA0/:@.-_[]% \n\u00e9") | st.text())
def test_reference_parse_any_text_leaks_nothing_else(text: str) -> None:
    try:
        parsed = Reference.parse(text)
    except HarborSatelliteError:
        return
    assert Reference.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        (Reference("host", "app", "v1"), "v1"),
        (Reference("host", "app", "", Digest.parse(DIGEST)), DIGEST),
        (Reference("host", "app", "v1", Digest.parse(DIGEST)), DIGEST),
    ],
    ids=["tag", "digest", "digest before tag"],
)
def test_reference_target_is_what_registry_is_asked_for(reference: Reference, target: str) -> None:
    assert reference.target == target


def test_reference_with_digest_keeps_tag() -> None:
    pinned = Reference("host", "app", "v1").with_digest(Digest.parse(DIGEST))

    assert str(pinned) == f"host/app:v1@{DIGEST}"


@pytest.mark.parametrize("repository", ["a", "a/b/c", "a-b/c.d/e__f", "0/1", "a" * 255], ids=str)
def test_check_repository_by_the_rules_is_returned(repository: str) -> None:
    assert check_repository(repository) == repository


@pytest.mark.parametrize("repository", ["", "A", "a/", "a..b", "a/../b", "a" * 256, "a\n"], ids=repr)
def test_check_repository_against_the_rules_is_refused(repository: str) -> None:
    with pytest.raises(InvalidInputError, match="not a repository name"):
        check_repository(repository)


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a/b", "a:b", "a b", "a" * 129, "a\n", "é"], ids=repr)
def test_check_tag_against_the_rules_is_refused(tag: str) -> None:
    with pytest.raises(InvalidInputError, match="not a tag"):
        check_tag(tag)


@pytest.mark.parametrize(("text", "kind"), [(DIGEST, "digest"), ("latest", "tag")])
def test_reference_kind_tells_digest_from_tag(text: str, kind: str) -> None:
    assert reference_kind(text) == kind


@pytest.mark.parametrize("text", ["sha256:12", "", "../x"], ids=repr)
def test_reference_kind_of_neither_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        reference_kind(text)
