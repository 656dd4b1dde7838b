"""How commands show images, and how they read sizes."""

from __future__ import annotations

import json

import pytest

from harbor_satellite.cli.images import show_images
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.inputs import parse_size
from harbor_satellite.satellite.outcome import ACTIONS, ImageOutcome
from harbor_satellite.state.plan import Rule

DIGEST = "sha256:" + "1" * 64
IMAGES = (
    ImageOutcome("kept", "acme/b:v1", DIGEST, "wanted by g"),
    ImageOutcome("quarantined", "acme/c:v1", DIGEST, "failed twice", rule=Rule.QUARANTINE),
    ImageOutcome("copied", "acme/d:v1", DIGEST, "not there", 2000, 1.234, Rule.ABSENT, ("g", "h")),
    ImageOutcome("copied", "acme/a:v1", DIGEST, "not there"),
)


def test_show_images_as_text_sorts_by_action_and_ends_with_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    show_images(IMAGES, "text", {"requests": 5}, "the summary")

    assert capsys.readouterr().out.splitlines() == [
        "copied      acme/a:v1  not there",
        "copied      acme/d:v1  not there",
        "kept        acme/b:v1  wanted by g",
        "quarantined acme/c:v1  failed twice",
        "the summary",
    ]


def test_show_images_as_json_has_a_list_for_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    show_images(IMAGES, "json", {}, "the summary")

    document = json.loads(capsys.readouterr().out)
    found = {action: [row["reference"] for row in rows] for action, rows in document.items() if rows}
    assert set(document) == set(ACTIONS)
    assert found == {"copied": ["acme/d:v1", "acme/a:v1"], "kept": ["acme/b:v1"], "quarantined": ["acme/c:v1"]}


def test_show_images_as_json_says_all_of_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    show_images(IMAGES[2:3], "json", {}, "the summary")

    (row,) = json.loads(capsys.readouterr().out)["copied"]
    assert row == {
        "action": "copied",
        "reference": "acme/d:v1",
        "rule": "absent",
        "reason": "not there",
        "groups": "g, h",
        "bytes": 2000,
        "seconds": 1.23,
        "digest": DIGEST,
    }


def test_show_images_as_json_has_the_document_and_no_summary(capsys: pytest.CaptureFixture[str]) -> None:
    show_images((), "json", {"requests": 5}, "the summary")

    document = json.loads(capsys.readouterr().out)
    assert document.pop("requests") == 5
    assert document == {action: [] for action in ACTIONS}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("512B", 512),
        ("9K", 9000),
        ("9KB", 9000),
        ("700M", 700_000_000),
        ("4G", 4 * 10**9),
        ("2TB", 2 * 10**12),
        ("1Ki", 1024),
        ("3MiB", 3 * 2**20),
        ("4GiB", 4 * 2**30),
        ("1Ti", 2**40),
    ],
)
def test_parse_size_reads_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "G", "B", "4X", "4g", "-1", "+1", "1.5G", "1e3", "4 G", " 4G", "4GG", "4GBB", "4iB", "4BG", "٤G", "4²"],
)
def test_parse_size_refuses_what_is_none(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a size"):
        parse_size(text)


def test_parse_size_quotes_only_the_beginning_of_what_is_none() -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_size("x" * 10_000)

    assert len(str(raised.value)) < 200
