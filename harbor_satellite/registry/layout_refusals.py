"""How a layout refuses: the error codes of distribution-spec, carried by a ``RemoteError``.

What lives here: the codes and the error that carries one. What must not: HTTP, which is ``server_errors.py``.
"""

from __future__ import annotations

from enum import StrEnum

from harbor_satellite.errors import RemoteError


class ErrorCode(StrEnum):
    """Codes of distribution-spec, "Error Codes"; the ones marked ours name what the spec has no word for."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DENIED = "DENIED"
    DIGEST_INVALID = "DIGEST_INVALID"
    INSUFFICIENT_STORAGE = "INSUFFICIENT_STORAGE"
    """Ours: the disk is full."""
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    PAGINATION_NUMBER_INVALID = "PAGINATION_NUMBER_INVALID"
    RANGE_INVALID = "RANGE_INVALID"
    """Ours: the asked bytes lie outside the blob."""
    SIZE_INVALID = "SIZE_INVALID"
    TAG_INVALID = "TAG_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    UNKNOWN = "UNKNOWN"
    UNSUPPORTED = "UNSUPPORTED"


class RefusedError(RemoteError):
    """A layout refuses, with the HTTP status and the code that a registry in front of it must answer.

    Args:
        code: distribution-spec's word for it.
        status: the HTTP status that goes with it.
        message: what, which and where.
    """

    def __init__(self, code: ErrorCode, status: int, message: str) -> None:
        super().__init__(message, status=status)
        self.code = code
