from __future__ import annotations

import pytest

from ci.errors import UsageError
from ci.references import Reference, image_reference, parse_prefix, parse_reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("ghcr.io/acme/app", Reference("ghcr.io", "acme/app")),
        ("localhost:5000/app:1.2", Reference("localhost:5000", "app", tag="1.2")),
        (f"[::1]:5000/a/b@{DIGEST}", Reference("[::1]:5000", "a/b", digest=DIGEST)),
        (f"ghcr.io/acme/app:v1@{DIGEST}", Reference("ghcr.io", "acme/app", "v1", DIGEST)),
    ],
    ids=["neither", "tag", "digest", "both"],
)
def test_parse_reference_form_round_trips(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app",
        "acme/app",
        "ghcr.io/",
        "ghcr.io/Acme",
        "ghcr.io/a@sha256:12",
        "ghcr.io/a:",
        "ghcr.io/a:-x",
        "--key/x.y",
    ],
)
def test_parse_reference_malformed_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no (reference|digest|tag)"):
        parse_reference(text)


def test_at_tagged_reference_drops_tag() -> None:
    assert str(parse_reference("ghcr.io/acme/app:1").at(DIGEST)) == f"ghcr.io/acme/app@{DIGEST}"


def test_tagged_digest_reference_drops_digest() -> None:
    assert str(parse_reference(f"ghcr.io/acme/app@{DIGEST}").tagged("1")) == "ghcr.io/acme/app:1"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("localhost:5000", "localhost:5000/satellite"), ("ghcr.io/acme/", "ghcr.io/acme/satellite")],
    ids=["registry-alone", "path"],
)
def test_image_reference_prefix_holds_image(prefix: str, expected: str) -> None:
    assert str(image_reference(parse_prefix(prefix), "satellite")) == expected


@pytest.mark.parametrize("text", ["", "https://ghcr.io/acme", "ghcr.io/acme:1", "ghcr.io/ACME", "-x"])
def test_parse_prefix_malformed_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="is no place for images"):
        parse_prefix(text)
