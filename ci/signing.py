"""Command lines of cosign 3 that sign, attest and verify, and the order in which they run. Pure.

A signature is made for a digest, never for a tag. With a key pair nothing is asked of and nothing sent to a public
service: no transparency log, no time stamp, no TUF. Without one cosign signs with a certificate for the identity
that the CI gives (keyless), by the services of its signing config.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ci.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ci.references import Reference

SPDX: Final = "spdxjson"
PROVENANCE: Final = "slsaprovenance1"

PRIVATE_KEY_VARIABLE: Final = "COSIGN_PRIVATE_KEY"
PASSWORD_VARIABLE: Final = "COSIGN_PASSWORD"  # noqa: S105 - its name
IDENTITY_VARIABLES: Final = ("SIGSTORE_ID_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL")
"""From where cosign takes the identity of a CI's job: GitLab's and others' token, or GitHub's way to get one."""

_PUBLIC_KEY: Final = "cosign.pub"
_SIGNING_CONFIG: Final = "signing-config.json"
_TRUSTED_ROOT: Final = "trusted-root.json"
# As `cosign signing-config create` and `cosign trusted-root create` write them when no service is named.
_NO_SERVICES: Final = (
    '{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}'
)
_NO_ROOTS: Final = '{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'


@dataclass(frozen=True)
class Trust:
    """What a signature must show: the key, or who signed and who vouches for that."""

    public_key: str = ""
    """PEM; empty: keyless."""
    identity: str = ""
    """Of the certificate: an address, or the URL of a workflow."""
    issuer: str = ""
    """Of the identity: `https://token.actions.githubusercontent.com`."""
    signing_config: str = ""
    """JSON, of a private Sigstore; empty: the public one's. Keyless only."""
    trusted_root: str = ""
    """JSON, of a private Sigstore; empty: the public one's. Keyless only."""

    def __post_init__(self) -> None:
        """Check that it is one of the two.

        Raises:
            UsageError: it is neither, or both.
        """
        if bool(self.public_key) == bool(self.identity and self.issuer):
            raise UsageError(
                "how signatures are checked is not clear: give --public-key FILE, or --identity and --issuer"
            )

    @property
    def is_keyless(self) -> bool:
        """Whether certificates sign, not a key."""
        return not self.public_key


@dataclass(frozen=True)
class Cosign:
    """Writes cosign's command lines; the program is not part of them."""

    trust: Trust
    folder: str
    """Where the files of `files` lie when cosign runs."""
    plain_http: frozenset[str] = frozenset()
    """Registries without TLS."""

    def files(self) -> Mapping[str, str]:
        """Return name → text of what the command lines name in the folder; nothing in it is secret."""
        if not self.trust.is_keyless:
            return {_PUBLIC_KEY: self.trust.public_key, _SIGNING_CONFIG: _NO_SERVICES, _TRUSTED_ROOT: _NO_ROOTS}
        given = {_SIGNING_CONFIG: self.trust.signing_config, _TRUSTED_ROOT: self.trust.trusted_root}
        return {name: text for name, text in given.items() if text}

    def sign(self, reference: Reference) -> list[str]:
        """Return how an image is signed: the index and each manifest it names.

        Raises:
            UsageError: the reference has no digest; a tag may move between its reading and the signature.
        """
        return ["sign", "--recursive", *self._signer(), *self._registry(reference), _by_digest(reference)]

    def attest(self, reference: Reference, kind: str, predicate: str) -> list[str]:
        """Return how a statement about an image is signed and attached.

        Args:
            reference: by digest.
            kind: SPDX or PROVENANCE.
            predicate: path of the statement's predicate.

        Raises:
            UsageError: the reference has no digest.
        """
        about = ["--type", kind, "--predicate", predicate]
        return ["attest", *about, *self._signer(), *self._registry(reference), _by_digest(reference)]

    def verify(self, reference: Reference) -> list[str]:
        """Return how an image's signature is checked.

        Raises:
            UsageError: the reference has no digest.
        """
        return ["verify", *self._verifier(), *self._registry(reference), _by_digest(reference)]

    def verify_attestation(self, reference: Reference, kind: str) -> list[str]:
        """Return how an image's attestation of a kind is checked: it is there, and signed.

        Raises:
            UsageError: the reference has no digest.
        """
        check = ["verify-attestation", "--type", kind]
        return [*check, *self._verifier(), *self._registry(reference), _by_digest(reference)]

    def sign_blob(self, path: str, bundle: str) -> list[str]:
        """Return how a file is signed; the signature is written to the bundle."""
        return ["sign-blob", *self._signer(), "--bundle", bundle, path]

    def verify_blob(self, path: str, bundle: str) -> list[str]:
        """Return how a file's signature in a bundle is checked."""
        return ["verify-blob", *self._verifier(), "--bundle", bundle, path]

    def _signer(self) -> list[str]:
        key = [] if self.trust.is_keyless else ["--key", f"env://{PRIVATE_KEY_VARIABLE}"]
        config = ["--signing-config", self._path(_SIGNING_CONFIG)] if _SIGNING_CONFIG in self.files() else []
        return ["--yes", *key, *config, *self._trusted_root()]

    def _verifier(self) -> list[str]:
        if not self.trust.is_keyless:
            # There is no log to ask: the key alone proves.
            return ["--key", self._path(_PUBLIC_KEY), "--insecure-ignore-tlog=true", *self._trusted_root()]
        who = ["--certificate-identity", self.trust.identity, "--certificate-oidc-issuer", self.trust.issuer]
        return [*who, *self._trusted_root()]

    def _trusted_root(self) -> list[str]:
        return ["--trusted-root", self._path(_TRUSTED_ROOT)] if _TRUSTED_ROOT in self.files() else []

    def _registry(self, reference: Reference) -> list[str]:
        return ["--allow-http-registry"] if reference.registry in self.plain_http else []

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}"


@dataclass(frozen=True)
class Published:
    """An image as it was published: what is signed and attested."""

    index: Reference
    """By digest."""
    platforms: Mapping[str, Reference]
    """Platform → its manifest, by digest; the index itself where it is no index, but an image of one platform."""
    sboms: Mapping[str, str] = field(default_factory=dict)
    """Platform → path of its SBOM; empty: none is attached."""
    provenance: str = ""
    """Path of the provenance; empty: none is attached."""

    @property
    def subjects(self) -> tuple[Reference, ...]:
        """The index and each platform's manifest, each once."""
        return tuple(dict.fromkeys((self.index, *self.platforms.values())))


def signing_steps(cosign: Cosign, image: Published) -> Sequence[list[str]]:
    """Return the command lines that sign and attest, to be run one after the other.

    Not beside each other: a registry without the referrers API keeps them in a list that each step reads and writes.
    """
    return [cosign.sign(image.index), *attestation_steps(cosign, image)]


def attestation_steps(cosign: Cosign, image: Published) -> Sequence[list[str]]:
    """Return the command lines that attest, and sign nothing else; see `signing_steps`."""
    steps = [cosign.attest(image.platforms[platform], SPDX, path) for platform, path in image.sboms.items()]
    if image.provenance:
        steps += [cosign.attest(subject, PROVENANCE, image.provenance) for subject in image.subjects]
    return steps


def verification_steps(cosign: Cosign, image: Published) -> Sequence[list[str]]:
    """Return the command lines that check what `signing_steps` made, all of it; none may fail."""
    steps = [cosign.verify(subject) for subject in image.subjects]
    steps += [cosign.verify_attestation(image.platforms[platform], SPDX) for platform in image.sboms]
    if image.provenance:
        steps += [cosign.verify_attestation(subject, PROVENANCE) for subject in image.subjects]
    return steps


def _by_digest(reference: Reference) -> str:
    if not reference.digest:
        raise UsageError(f"{reference} is a tag, which may move: wanted is {reference.name}@sha256:…")
    return str(reference.at(reference.digest))
