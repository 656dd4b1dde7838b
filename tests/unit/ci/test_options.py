from __future__ import annotations

from pathlib import Path

import pytest

from ci.errors import UsageError
from ci.options import parse
from ci.references import Reference

PUBLISH = ["publish", "--registry", "ghcr.io/acme", "--tag", "1.2.3"]
VERBS = ("test", "check", "lock", "build", "publish", "sign", "verify", "sbom", "release")
DIGEST = "sha256:" + "1" * 64


@pytest.mark.parametrize("verb", VERBS)
def test_parse_verb_has_help_with_its_secrets(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([verb, "--help"])

    assert ended.value.code == 0
    assert "secrets, from the environment only" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_parse_help_no_option_takes_a_secret(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit):
        parse([verb, "--help"])

    options = [word for word in capsys.readouterr().out.split() if word.startswith("--")]
    assert not [word for word in options if any(part in word for part in ("password", "token", "private", "secret"))]


def test_parse_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])

    out = capsys.readouterr().out
    assert all(f"\n    {verb} " in out for verb in VERBS)


def test_parse_publish_values_are_typed() -> None:
    options = parse([*PUBLISH, "--platform", "linux/amd64,linux/arm64", "--insecure-registry", "localhost:5000"])

    assert options.prefix == Reference("ghcr.io", "acme")
    assert options.tags == ("1.2.3",)
    assert options.platforms == ("linux/amd64,linux/arm64",)
    assert options.plain_http == {"localhost:5000"}
    assert options.images == ("satellite", "ground-control")
    assert options.smoke


def test_parse_build_one_image_and_mirrors() -> None:
    options = parse(
        ["build", "--image", "satellite", "--no-smoke", "--pip-conf", "pip.conf", "--tool", "syft=a.io/b:1"]
    )

    assert options.images == ("satellite",)
    assert not options.smoke
    assert options.mirrors.pip_conf == Path("pip.conf")
    assert options.mirrors.ca_bundle is None
    assert options.tools == {"syft": "a.io/b:1"}


def test_parse_test_arguments_go_to_pytest() -> None:
    assert parse(["test", "--", "-k", "unit"]).arguments == ("-k", "unit")


def test_parse_verify_reference_is_typed() -> None:
    options = parse(["verify", f"localhost:5000/app@{DIGEST}", "--attestations"])

    assert options.references == (Reference("localhost:5000", "app", digest=DIGEST),)
    assert options.attest


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*PUBLISH, "--tag", "-"], "is no tag"),
        (["publish", "--registry", "https://x", "--tag", "1"], "is no place for images"),
        (["sign", "app:1"], "is no reference"),
        (["build", "--tool", "unknown=x"], "NAME=REFERENCE"),
    ],
    ids=["tag", "registry", "reference", "tool"],
)
def test_parse_malformed_value_is_named(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(argv)


@pytest.mark.parametrize(
    "argv", [[], ["deploy"], ["publish"], PUBLISH[:3], ["sign"], ["release", "--registry", "ghcr.io/acme"]]
)
def test_parse_incomplete_line_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)

    assert ended.value.code == 2
    assert "usage: python -m ci" in capsys.readouterr().err
