"""The one exception tree of the library.

    HarborSatelliteError
      ├ InvalidInputError         caller's value is wrong                    never retried
      │   └ NotFoundError         caller names something that does not exist
      ├ UntrustedDataError        a peer sent bad data                       never retried
      │   ├ DigestMismatchError   content is not what its digest promises
      │   ├ MalformedStateError   a state does not parse, or contradicts itself
      │   ├ SizeLimitError        a peer sent more than the cap for that kind of body
      │   ├ SignatureError        content is not signed as its policy wants
      │   └ BundleError           a bundle lacks a part, was damaged on its way, or is none
      ├ RemoteError               a peer is unreachable or refused (.status, .retryable, .retry_after_seconds)
      ├ ConflictError             one-time token already used, name taken, another replication is running
      ├ AuthenticationError       the caller is not who it says, or may not do this
      │   └ TokenRefusedError     a one-time token lets no site in (any more)
      ├ StorageError              the local disk is full, read-only or damaged
      │   └ OtherMachineError     a file was encrypted with the key of another machine
      ├ HostError                 a container runtime of this machine does not take its configuration
      ├ NoRecordError             nothing was replicated here yet, so there is nothing to say or to go back to
      └ PausedError               bytes may not move now: outside the sync windows, or a cap is reached (.until)

What lives here: error types and their diagnostics. What must not: anything that raises them.
Messages say what, which and where; retrying is decided by ``retryable``, in tasks only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class HarborSatelliteError(Exception):
    """Anything this library reports on purpose."""

    retryable: bool = False
    """Whether the same call may succeed later without anybody changing anything."""

    def diagnostics(self) -> str:
        """Say, in a line or two, what an operator should check."""
        return "Run again with --log-level DEBUG to see each request."


class InvalidInputError(HarborSatelliteError):
    """The caller's value is wrong; the message names the value and the rule."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "Correct the value or the file named in the message."


class NotFoundError(InvalidInputError):
    """The caller names something that does not exist."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "Check the name, and --data-dir and --target where the command has them; nothing was changed."


class UntrustedDataError(HarborSatelliteError):
    """A peer sent data that must not be used."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return (
            "Nothing was published. Check the content at the named registry; publish it again if it is damaged there."
        )


class DigestMismatchError(UntrustedDataError):
    """Content is not what its digest promises."""


class MalformedStateError(UntrustedDataError):
    """A state artifact, satellite state or manifest does not parse, or contradicts itself."""


class SizeLimitError(UntrustedDataError):
    """A peer sent more bytes than the cap for that kind of body."""


class SignatureError(UntrustedDataError):
    """Content is not signed by any key that its policy names, or the check itself could not be made."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "Sign the content at the source with a key of the policy, or correct the policy; nothing was published."


class BundleError(UntrustedDataError):
    """A bundle lacks a part, was damaged on its way, or is none."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "Nothing was published. Copy the named part again from where the bundle was made, or make it anew."


class RemoteError(HarborSatelliteError):
    """A peer is unreachable, or answered with a refusal.

    Args:
        message: what was asked, of whom, and how it answered; never a secret or a query string.
        status: HTTP status, or None when there was no answer at all.
        retryable: whether trying the same call again makes sense.
        retry_after_seconds: what the peer asked for, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds

    def diagnostics(self) -> str:
        """Say what an operator should check, by the kind of refusal."""
        match self.status:
            case None:
                return "Check that the address is right and the peer is up and reachable from here."
            case 401 | 403:
                return "Check the credentials and what they are allowed to do at that registry or service."
            case 404:
                return "Check the name: the peer is up but does not have it (or hides it from these credentials)."
            case 429:
                return "The peer limits the rate of requests; it will be tried again later."
            case _:
                return "Look at the peer's own log for this time."


class ConflictError(HarborSatelliteError):
    """Somebody else was first: another replication is running, the name is taken, the one-time token was used."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return (
            "Wait until what runs now is done, and try again; "
            "if a name is taken choose another, if a one-time token was used issue a new one."
        )


class AuthenticationError(HarborSatelliteError):
    """The caller is not who it says, or may not do this."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "Check user name, password or token; log in again."


class TokenRefusedError(AuthenticationError):
    """A one-time token lets no site in: it is unknown, used, revoked or expired."""

    def diagnostics(self) -> str:
        """Say what an operator should do."""
        return (
            "Make a new one at the centre, `harbor-satellite fleet satellite token NAME`, and register with that; "
            "a token lets one site in, once."
        )


class StorageError(HarborSatelliteError):
    """The local disk is full, read-only or damaged."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return (
            "Check free space, permissions and health of the disk named in the message; nothing was published. "
            "Where a file of the record itself is damaged (applied.json, generations.json), move the file away to "
            "start anew: the site then looks at its registry again, and forgets what it put there itself (nothing of "
            "that is deleted by it any more)."
        )


class OtherMachineError(StorageError):
    """A file was encrypted with a key that is bound to another machine, or the salt of the key was lost."""

    def diagnostics(self) -> str:
        """Say what an operator should do."""
        return (
            "The disk was moved, the machine's identity has changed, or machine-key.json was lost. Put it back, or "
            "register this site again: make a one-time token at the centre (`harbor-satellite fleet satellite token "
            "NAME`), then `harbor-satellite edge register --again`. The images stay."
        )


class HostError(HarborSatelliteError):
    """A container runtime of this machine did not take its configuration."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "The runtime's files are as they were. Look at its log (journalctl -u UNIT), then apply again."


class NoRecordError(HarborSatelliteError):
    """Nothing was replicated here yet, so there is nothing to say, to check or to go back to."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "Check --data-dir, --target and the variables of the same names; `edge sync` makes the record."


class PausedError(HarborSatelliteError):
    """Bytes from the source may not move now; what has arrived is kept, and the next run goes on there.

    Args:
        message: which window or cap, in the site's own words.
        until: when bytes may move again.
    """

    def __init__(self, message: str, *, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "Nothing is wrong: replication goes on by itself. Widen the sync windows or raise the cap to go on now."
