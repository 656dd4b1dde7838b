"""Running cosign: what it is told, what it may see, and what becomes of its answers. A script stands in for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError, SignatureError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.cosign import Cosign, RegistryAccess

DIGEST = Digest.of(b"an image")
KEY = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
PLAIN = RegistryAccess("http://127.0.0.1:5000")
SECRET = "a-secret-that-nobody-may-see"
SIGNED = "https://sigstore.dev/cosign/sign/v1"
ATTESTED = "https://cosign.sigstore.dev/attestation/v1"


def found(kind: str, digest: Digest = DIGEST) -> str:
    return json.dumps([{"critical": {"image": {"docker-manifest-digest": str(digest)}, "type": kind}, "optional": {}}])


def stand_in(folder: Path, body: str, timeout_seconds: float = 20) -> Cosign:
    program = folder / "cosign"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o700)
    return Cosign(str(program), timeout_seconds)


def check(cosign: Cosign, registry: RegistryAccess = PLAIN, keys: tuple[str, ...] = (KEY,)) -> None:
    cosign.verify(registry, "acme/app", DIGEST, keys)


def test_verify_signed_passes(tmp_path: Path) -> None:
    check(stand_in(tmp_path, f"echo '{found(SIGNED)}'"))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(f"echo '{found(ATTESTED)}'", "carries attestations, but no signature", id="only attested"),
        pytest.param(f"echo '{found(SIGNED, Digest.of(b'another'))}'", "no signature", id="of another digest"),
        pytest.param("echo '[]'", "no signature", id="nothing verified"),
        pytest.param("echo 'OK'", "no signature", id="not JSON"),
        pytest.param("echo '[[[1]]]'", "no signature", id="odd JSON"),
        pytest.param("exit 10", "no signature found", id="none"),
        pytest.param("exit 12", "not by a key of the policy", id="older signature of another key"),
        pytest.param(
            "echo 'Error: no matching attestations: x' >&2; exit 1", "not by a key of the policy", id="bundle"
        ),
    ],
)
def test_verify_not_signed_says_which_and_why(tmp_path: Path, answer: str, reason: str) -> None:
    with pytest.raises(SignatureError, match=reason) as caught:
        check(stand_in(tmp_path, answer))

    assert f"127.0.0.1:5000/acme/app@{DIGEST}" in str(caught.value)
    assert not caught.value.retryable


def test_verify_older_signature_behind_a_bundle_of_another_key_is_found(tmp_path: Path) -> None:
    cosign = stand_in(
        tmp_path,
        f"case \"$*\" in *--new-bundle-format=false*) echo '{found('cosign container image signature')}';; "
        "*) echo 'no matching attestations' >&2; exit 1;; esac",
    )

    check(cosign)


def test_verify_second_key_suffices(tmp_path: Path) -> None:
    other = KEY.replace("MFkw", "BBBB")
    cosign = stand_in(tmp_path, f"grep -q BBBB key.pub || exit 12\necho '{found(SIGNED)}'")

    check(cosign, keys=(KEY, other))

    with pytest.raises(SignatureError, match="2 keys"):
        check(cosign, keys=(KEY, KEY))


def test_verify_without_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no key"):
        check(stand_in(tmp_path, f"echo '{found(SIGNED)}'"), keys=())


def test_verify_refused_by_the_registry_is_worth_another_try(tmp_path: Path) -> None:
    cosign = stand_in(tmp_path, "echo 'error during command execution: connection refused' >&2; exit 1")

    with pytest.raises(SignatureError, match="could not be checked: connection refused") as caught:
        check(cosign)

    assert caught.value.retryable


def test_verify_without_cosign_names_the_program(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="no program '/nowhere/cosign'"):
        check(Cosign("/nowhere/cosign"))


def test_verify_program_that_is_none_is_an_error_of_ours(tmp_path: Path) -> None:
    program = tmp_path / "cosign"
    program.write_bytes(b"\x7fELF, but not really")
    program.chmod(0o700)

    with pytest.raises(SignatureError, match="cannot be run"):
        check(Cosign(str(program)))


def test_verify_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    cosign = stand_in(tmp_path, "sleep 600 & wait", timeout_seconds=0.5)  # the child holds its output open, too

    with pytest.raises(SignatureError, match="was stopped") as caught:
        check(cosign)

    assert caught.value.retryable


def test_verify_endless_output_is_read_and_dropped(tmp_path: Path) -> None:
    cosign = stand_in(tmp_path, "head -c 50000000 /dev/zero; head -c 50000000 /dev/zero >&2; exit 1")

    with pytest.raises(SignatureError) as caught:
        check(cosign)

    assert len(str(caught.value)) < 1000


def test_verify_sees_nothing_of_the_callers_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COSIGN_REPOSITORY", "SIGSTORE_ROOT_FILE", "HTTPS_PROXY", "REGISTRY_AUTH_FILE", "COSIGN_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    cosign = stand_in(tmp_path, f"env > {tmp_path}/seen; echo '{found(SIGNED)}'")

    check(cosign)

    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert SECRET not in seen.values()
    assert seen["HOME"] == seen["DOCKER_CONFIG"] == seen["TMPDIR"]
    assert not Path(seen["HOME"]).exists()


def test_verify_credentials_are_in_a_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    registry = RegistryAccess("http://127.0.0.1:5000", Credentials("reader", SecretStr(SECRET)))
    cosign = stand_in(
        tmp_path,
        f'echo "$*" > {tmp_path}/arguments; stat -c %a config.json . > {tmp_path}/modes; '
        f"pwd > {tmp_path}/folder; cp config.json {tmp_path}/config.json; echo '{found(SIGNED)}'",
    )

    check(cosign, registry)

    auths = json.loads((tmp_path / "config.json").read_text())["auths"]
    assert auths.keys() == {"127.0.0.1:5000"}
    assert (tmp_path / "modes").read_text().split() == ["600", "700"]
    assert SECRET not in (tmp_path / "arguments").read_text()
    assert not Path((tmp_path / "folder").read_text().strip()).exists()


@pytest.mark.parametrize(
    ("url", "host", "is_plain_http"),
    [
        ("http://127.0.0.1:8585", "127.0.0.1:8585", True),
        ("127.0.0.1:8585", "127.0.0.1:8585", True),
        ("https://registry.example", "registry.example", False),
        ("registry.example", "registry.example", False),
        # Without its port, tools would take it for a repository of Docker Hub.
        ("http://zot", "zot:80", True),
        ("https://zot", "zot:443", False),
        ("https://zot:5000", "zot:5000", False),
        ("https://[::1]:5000", "[::1]:5000", False),
    ],
)
def test_registry_access_host_is_taken_for_a_host(url: str, host: str, is_plain_http: bool) -> None:  # noqa: FBT001
    access = RegistryAccess(url)

    assert (access.host, access.is_plain_http) == (host, is_plain_http)


def test_sign_refused_never_shows_the_password(tmp_path: Path) -> None:
    (tmp_path / "cosign.key").touch()
    cosign = stand_in(tmp_path, f'echo "$COSIGN_PASSWORD" > {tmp_path}/password; echo wrong >&2; exit 1')

    with pytest.raises(SignatureError, match="could not be signed: wrong") as caught:
        cosign.sign(PLAIN, "acme/app", DIGEST, key=tmp_path / "cosign.key", password=SecretStr(SECRET))

    assert SECRET not in str(caught.value)
    assert (tmp_path / "password").read_text().strip() == SECRET


def test_public_key_of_what_is_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="cannot be used"):
        stand_in(tmp_path, "echo nonsense").public_key(tmp_path / "cosign.key", SecretStr(""))
