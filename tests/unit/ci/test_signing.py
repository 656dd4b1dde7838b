from __future__ import annotations

import pytest

from ci.errors import UsageError
from ci.references import parse_reference
from ci.signing import PROVENANCE, SPDX, Cosign, Published, Trust, attestation_steps, signing_steps, verification_steps

INDEX = parse_reference("ghcr.io/acme/app@sha256:" + "1" * 64)
AMD64 = INDEX.at("sha256:" + "2" * 64)
ARM64 = INDEX.at("sha256:" + "3" * 64)
KEY = Trust(public_key="-----BEGIN PUBLIC KEY-----\n")
IDENTITY = Trust(identity="https://example.com/workflow", issuer="https://issuer.example.com")
IMAGE = Published(
    INDEX,
    {"linux/amd64": AMD64, "linux/arm64": ARM64},
    {"linux/amd64": "/in/amd64.json", "linux/arm64": "/in/arm64.json"},
    "/in/provenance.json",
)


@pytest.mark.parametrize("trust", [KEY, IDENTITY], ids=["key", "keyless"])
def test_cosign_tag_is_never_signed(trust: Trust) -> None:
    cosign = Cosign(trust, "/cosign")
    tag = parse_reference("ghcr.io/acme/app:1.2.3")

    for refused in (cosign.sign, cosign.verify):
        with pytest.raises(UsageError, match=r"app:1\.2\.3 is a tag, which may move"):
            refused(tag)
    with pytest.raises(UsageError, match="is a tag"):
        cosign.attest(tag, SPDX, "/in/sbom.json")


def test_sign_tag_and_digest_names_digest_alone() -> None:
    both = parse_reference(f"ghcr.io/acme/app:1.2.3@{INDEX.digest}")

    assert Cosign(KEY, "/cosign").sign(both)[-1] == str(INDEX)


def test_sign_key_uses_no_service_and_no_secret_in_arguments() -> None:
    cosign = Cosign(KEY, "/cosign")

    argv = cosign.sign(INDEX)

    assert argv[:2] == ["sign", "--recursive"]
    assert argv[argv.index("--key") + 1] == "env://COSIGN_PRIVATE_KEY"
    assert argv[argv.index("--signing-config") + 1] == "/cosign/signing-config.json"
    assert set(cosign.files()) == {"cosign.pub", "signing-config.json", "trusted-root.json"}
    assert "http" not in "".join(text for name, text in cosign.files().items() if name != "cosign.pub")


def test_sign_keyless_takes_no_key_and_services_of_the_public_sigstore() -> None:
    cosign = Cosign(IDENTITY, "/cosign")

    argv = cosign.sign(INDEX)

    assert not {"--key", "--signing-config", "--trusted-root"} & set(argv)
    assert cosign.files() == {}


def test_sign_keyless_private_sigstore_takes_its_files() -> None:
    private = Trust(identity="a@example.com", issuer="https://i", signing_config="{}", trusted_root="{ }")
    cosign = Cosign(private, "/cosign")

    assert cosign.files() == {"signing-config.json": "{}", "trusted-root.json": "{ }"}
    assert "/cosign/signing-config.json" in cosign.sign(INDEX)
    assert "/cosign/trusted-root.json" in cosign.verify(INDEX)


def test_verify_keyless_wants_identity_and_its_log() -> None:
    argv = Cosign(IDENTITY, "/cosign").verify(INDEX)

    assert argv[argv.index("--certificate-identity") + 1] == IDENTITY.identity
    assert argv[argv.index("--certificate-oidc-issuer") + 1] == IDENTITY.issuer
    assert "--insecure-ignore-tlog=true" not in argv


@pytest.mark.parametrize(
    "values",
    [{}, {"identity": "a"}, {"issuer": "i"}, {"public_key": "k", "identity": "a", "issuer": "i"}],
    ids=["nothing", "identity-alone", "issuer-alone", "both"],
)
def test_trust_unclear_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--public-key FILE, or --identity and --issuer"):
        Trust(**values)


def test_cosign_plain_http_only_where_said() -> None:
    cosign = Cosign(KEY, "/cosign", frozenset({"localhost:5000"}))

    assert "--allow-http-registry" not in cosign.sign(INDEX)
    assert "--allow-http-registry" in cosign.sign(parse_reference(f"localhost:5000/app@{INDEX.digest}"))


def test_signing_steps_signature_comes_before_attestations() -> None:
    steps = signing_steps(Cosign(KEY, "/cosign"), IMAGE)

    subjects = [(step[0], step[2] if step[0] == "attest" else "", step[-1]) for step in steps]
    assert subjects == [
        ("sign", "", str(INDEX)),
        ("attest", SPDX, str(AMD64)),
        ("attest", SPDX, str(ARM64)),
        ("attest", PROVENANCE, str(INDEX)),
        ("attest", PROVENANCE, str(AMD64)),
        ("attest", PROVENANCE, str(ARM64)),
    ]


def test_verification_steps_everything_signed_is_checked() -> None:
    cosign = Cosign(KEY, "/cosign")
    attested = {(step[2], step[-1]) for step in signing_steps(cosign, IMAGE) if step[0] == "attest"}

    steps = verification_steps(cosign, IMAGE)

    assert {step[-1] for step in steps if step[0] == "verify"} == {str(INDEX), str(AMD64), str(ARM64)}
    assert {(step[2], step[-1]) for step in steps if step[0] == "verify-attestation"} == attested
    assert not any("COSIGN_PRIVATE_KEY" in part for step in steps for part in step)


def test_steps_image_of_one_platform_is_attested_once() -> None:
    image = Published(INDEX, {"linux/amd64": INDEX}, {"linux/amd64": "/in/amd64.json"}, "/in/provenance.json")

    steps = [step[0] for step in signing_steps(Cosign(KEY, "/cosign"), image)]

    assert steps == ["sign", "attest", "attest"]


def test_attestation_steps_sign_no_image() -> None:
    steps = attestation_steps(Cosign(KEY, "/cosign"), IMAGE)

    assert {step[0] for step in steps} == {"attest"}
    assert [*steps] == [*signing_steps(Cosign(KEY, "/cosign"), IMAGE)][1:]
