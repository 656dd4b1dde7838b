"""Signatures of cosign: checked and made by its own program, against one registry and nothing else.

What lives here: running ``cosign`` so that it can reach no other network, and reading what it found. What must
not: any cryptography, and who must have signed what.

The check finds what cosign finds: bundles (cosign 3) as referrers, and older signatures under the tag
``sha256-….sig``. It goes by digest and needs no tag of the image itself; the older scheme's own tag must be there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from harbor_satellite.errors import InvalidInputError, SignatureError
from harbor_satellite.registry.client_urls import parse_address
from harbor_satellite.registry.cosign_process import Finished, run_capped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.auth import Credentials

TIMEOUT_SECONDS: Final = 60.0
"""For one run of cosign; 0.05 s are usual."""
_NONE_FOUND: Final = 10  # cosign's own exit status
_NOT_BY_THIS_KEY: Final = 12  # of an older signature; one in a bundle has only words
_NOT_BY_THIS_KEY_WORDS: Final = "no matching attestations"
_LOOKS: Final = ((), ("--new-bundle-format=false",))
# A bundle of another key hides older signatures from cosign 3, so those are asked for by themselves.
_SIGNATURE_TYPES: Final = frozenset({"https://sigstore.dev/cosign/sign/v1", "cosign container image signature"})
# cosign 3 lets any attestation in a bundle pass for a signature, were it that of a failed scan.
_HINT_MAX_LENGTH: Final = 300  # characters of cosign's own words


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """How to reach one registry with a program that is not ours."""

    url: str
    """``http://host:port``, ``https://host`` or a bare host, as for ``HttpRegistry``."""
    credentials: Credentials | None = None
    """None: anybody may read."""
    ca: Path | None = None
    """CA bundle of the registry; None: the system's."""

    @property
    def is_plain_http(self) -> bool:
        """Whether it is spoken to without TLS."""
        return parse_address(self.url).url.scheme == "http"

    @property
    def host(self) -> str:
        """``host[:port]``, so written that no tool takes it for a repository of Docker Hub."""
        url = parse_address(self.url).url
        netloc = url.netloc.decode()
        is_plain_word = not {".", ":"} & set(netloc) and netloc != "localhost"
        return f"{netloc}:{80 if url.scheme == 'http' else 443}" if is_plain_word else netloc


@dataclass(frozen=True, slots=True)
class Cosign:
    """The cosign program (3 or later), run without the caller's environment; safe to use from many threads."""

    program: str = "cosign"
    """A name on PATH, or a path."""
    timeout_seconds: float = TIMEOUT_SECONDS

    def verify(self, registry: RegistryAccess, repository: str, digest: Digest, keys: Sequence[str]) -> None:
        """Check that one of the keys has signed an artifact; no other network is asked than the registry.

        Args:
            registry: where the artifact and its signatures are.
            repository: its name there.
            digest: its manifest or index; for an index the signature of the index itself counts.
            keys: public keys in PEM; any one suffices.

        Raises:
            SignatureError: none of them did, or the check could not be made (then ``retryable`` is set if it
                may be better luck next time).
            InvalidInputError: there is no key, or the registry's address is wrong.
        """
        if not keys:
            raise InvalidInputError(f"{repository}@{digest}: no key to check the signature with")
        what = f"{registry.host}/{repository}@{digest}"
        reasons = []
        with _Workplace(registry) as place:
            for key in keys:
                key_path = place.write("key.pub", key)
                arguments = ["verify", "--key", key_path, "--insecure-ignore-tlog=true", *place.registry_options]
                for look in _LOOKS:
                    done = self._run(place, [*arguments, *look, what], what)
                    if done.status == 0 and _holds_signature(done.stdout, digest):
                        return
                    reasons.append(_reason(done, what))
        raise SignatureError(f"{what}: {min(reasons)[1]} ({_keys_text(len(keys))})")

    def sign(
        self, registry: RegistryAccess, repository: str, digest: Digest, *, key: Path, password: SecretStr
    ) -> None:
        """Sign an artifact with a private key; the signature becomes a referrer of it, no log is told.

        Every call adds one more signature: ask ``verify`` first.

        Raises:
            SignatureError: cosign is missing, does not take the key or the password, or the registry refuses.
        """
        what = f"{registry.host}/{repository}@{digest}"
        with _Workplace(registry, password) as place:
            options = ["--yes", "--key", str(key.resolve()), "--use-signing-config=false", "--tlog-upload=false"]
            done = self._run(place, ["sign", *options, *place.registry_options, what], what)
        if done.status:
            raise _not_done(f"{what} could not be signed", done)

    def public_key(self, key: Path, password: SecretStr) -> str:
        """Return the public half (PEM) of a private key.

        Raises:
            SignatureError: cosign is missing, or does not take the key or the password.
        """
        with _Workplace(None, password) as place:
            done = self._run(place, ["public-key", "--key", str(key.resolve())], str(key))
        if done.status or not done.stdout.startswith(b"-----BEGIN PUBLIC KEY-----"):
            raise _not_done(f"the signing key {key} cannot be used", done)
        return done.stdout.decode().strip() + "\n"

    def _run(self, place: _Workplace, arguments: Sequence[str], what: str) -> Finished:
        program = shutil.which(self.program)
        if program is None:
            raise SignatureError(f"{what}: there is no program {self.program!r} to check or make signatures with")
        try:
            done = run_capped([program, *arguments], place.environment, place.folder, self.timeout_seconds)
        except OSError as error:
            raise SignatureError(f"{what}: {program} cannot be run: {error.strerror}") from error
        if done.status is None:
            message = f"{what}: cosign was not done after {self.timeout_seconds:.0f} s and was stopped"
            raise _retryable(SignatureError(message))
        return done


class _Workplace:
    """A folder of its own for one check: keys, credentials, and a home with nothing in it."""

    def __init__(self, registry: RegistryAccess | None, password: SecretStr | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="harbor-satellite-cosign-")  # 0700
        self.folder = Path(self._temporary.name)
        self.registry_options = _registry_options(registry) if registry else []
        # Not the caller's: COSIGN_*, SIGSTORE_*, proxies and credential helpers must not decide about trust.
        self.environment = {"HOME": str(self.folder), "DOCKER_CONFIG": str(self.folder), "TMPDIR": str(self.folder)}
        self.environment |= {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
        if password is not None:
            self.environment["COSIGN_PASSWORD"] = password.get_secret_value()
        self._credentials = (registry.host, registry.credentials) if registry else ("", None)

    def __enter__(self) -> Self:
        host, credentials = self._credentials
        if credentials:
            auth = credentials.basic.removeprefix("Basic ")
            self.write("config.json", json.dumps({"auths": {host: {"auth": auth}}}))
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def write(self, name: str, text: str) -> str:
        """Write a file that nobody else can read, and return its path."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)


def _registry_options(registry: RegistryAccess) -> list[str]:
    plain = ["--allow-http-registry"] if registry.is_plain_http else []
    return plain + ([f"--registry-cacert={registry.ca.resolve()}"] if registry.ca else [])


def _holds_signature(stdout: bytes, digest: Digest) -> bool:
    """Tell whether what cosign verified holds a signature of the artifact, and not only attestations about it."""
    try:
        found = [item["critical"] for item in json.loads(stdout)]
        return any(
            item["type"] in _SIGNATURE_TYPES and item["image"]["docker-manifest-digest"] == str(digest)
            for item in found
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _reason(done: Finished, what: str) -> tuple[int, str]:
    """Say why a look found nothing; the reason with the lowest number says most. Raises if it could not look."""
    words = done.stderr.decode(errors="replace")
    if done.status == 0:
        return 1, "it carries attestations, but no signature"
    if done.status == _NOT_BY_THIS_KEY or _NOT_BY_THIS_KEY_WORDS in words:
        return 0, "it is signed, but not by a key of the policy"
    if done.status == _NONE_FOUND:
        return 2, "no signature found"
    raise _not_done(f"{what}: the signature could not be checked", done)


def _not_done(message: str, done: Finished) -> SignatureError:
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    hint = lines[-1].removeprefix("error during command execution: ")[:_HINT_MAX_LENGTH] if lines else "it says nothing"
    return _retryable(SignatureError(f"{message}: {hint}"))


def _retryable(error: SignatureError) -> SignatureError:
    error.retryable = True
    return error


def _keys_text(count: int) -> str:
    return "1 key asked for" if count == 1 else f"{count} keys asked for, one would do"
