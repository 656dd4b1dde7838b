from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import DigestMismatchError, HarborSatelliteError, InvalidInputError
from harbor_satellite.oci.digest import Digest, is_digest

SHA256 = "sha256:" + "0f" * 32
SHA512 = "sha512:" + "0f" * 64


@pytest.mark.parametrize("text", [SHA256, SHA512], ids=["sha256", "sha512"])
def test_digest_parse_then_str_gives_same_text(text: str) -> None:
    assert str(Digest.parse(text)) == text
    assert is_digest(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "0f" * 32,
        "sha256:",
        SHA256[:-1],
        SHA256 + "0",
        SHA256.upper(),
        "sha256:" + "0F" * 32,
        "sha256:" + "0g" * 32,
        "sha512:" + "0f" * 32,
        "md5:" + "0f" * 16,
        f" {SHA256}",
        f"{SHA256}\n",
        "sha256:../../../../../../../../../../../../../../../../../../../../etc/",
    ],
    ids=[
        "empty",
        "tag",
        "no algorithm",
        "no hex",
        "too short",
        "too long",
        "upper case",
        "upper case hex",
        "not hex",
        "length of another algorithm",
        "unknown algorithm",
        "space in front",
        "newline behind",
        "path",
    ],
)
def test_digest_parse_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a sha256 or sha512 digest"):
        Digest.parse(text)

    assert not is_digest(text)


@given(st.text())
def test_digest_parse_any_text_leaks_nothing_else(text: str) -> None:
    try:
        parsed = Digest.parse(text)
    except HarborSatelliteError:
        return
    assert str(parsed) == text


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digest_of_bytes_is_that_of_hashlib(algorithm: str) -> None:
    digest = Digest.of(b"content", algorithm)

    assert digest.hex == hashlib.new(algorithm, b"content").hexdigest()


def test_digest_from_hasher_fed_in_pieces_is_that_of_whole() -> None:
    hasher = Digest.parse(SHA512).hasher()
    hasher.update(b"con")
    hasher.update(b"tent")

    assert Digest.from_hasher(hasher) == Digest.of(b"content", "sha512")


def test_digest_verify_other_bytes_names_what_and_both_digests() -> None:
    expected, got = Digest.of(b"content"), Digest.of(b"other")

    with pytest.raises(DigestMismatchError) as raised:
        expected.verify(b"other", "library/alpine")

    assert str(raised.value) == f"digest mismatch for library/alpine: expected {expected}, got {got}"


def test_digest_verify_same_bytes_passes() -> None:
    Digest.of(b"content", "sha512").verify(b"content", "it")


def test_digest_short_is_for_people() -> None:
    assert Digest.parse(SHA256).short == "0f0f0f0f0f0f"
