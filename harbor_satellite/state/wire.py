"""JSON bodies between Ground Control and a satellite: zero touch registration and status reports.

The original's keys are kept; fields of ours are optional, so that its satellites and its Ground Control
can be talked to as well. Pydantic is used here because bytes enter and leave here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer

# A report names every local image; caps keep a broken or hostile site from filling the centre's disk.
_Text = Annotated[str, Field(max_length=1024)]
LIST_MAX_LENGTH = 10_000
"""Images, groups or failures in one report; a site that has more names the first."""


class WireModel(BaseModel):
    """What every body has in common: unknown keys are ignored, so that either side may be newer."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class RegistrationClaim(WireModel):
    """What a site posts to exchange its one-time token."""

    token: SecretStr
    claim_key: SecretStr | None = None
    """Random text that the site made and stored before asking: who repeats it is the same site."""


class RegistryAuth(WireModel):
    """Where the satellite pulls from, and as whom: its one credential."""

    url: _Text
    username: _Text
    password: SecretStr
    expires_at: datetime | None = None
    """When the source takes it no more; None: never, or the centre did not say."""

    @field_serializer("password", when_used="json")
    def _reveal(self, password: SecretStr) -> str:
        return password.get_secret_value()


class Registration(WireModel):
    """The answer to a claim: the original's ``auth`` and ``state``, and ours."""

    auth: RegistryAuth
    state: _Text
    """URL of the satellite state."""
    satellite: _Text = ""
    prefect_api_url: _Text = ""
    """The Prefect API that the edge worker polls; empty: none, the site replicates by itself."""
    work_pool: _Text = ""
    groups: list[_Text] = Field(default_factory=list, max_length=LIST_MAX_LENGTH)
    schedule: _Text = ""
    """5-field cron"""


class CachedImage(WireModel):
    """One image in the local registry."""

    reference: _Text
    size_bytes: int = Field(default=0, ge=0)


class ImageFailure(WireModel):
    """One image that could not be brought to the site, and why."""

    reference: _Text
    reason: Annotated[str, Field(max_length=4096)]


class ImageDecision(WireModel):
    """What was decided about one image, and by which rule."""

    reference: _Text
    digest: _Text = ""
    action: _Text
    rule: _Text
    reason: Annotated[str, Field(max_length=4096)] = ""


class AppliedGroup(WireModel):
    """Which generation of a group's state the site follows."""

    group: _Text
    generation: int = Field(default=0, ge=0)
    digest: _Text = ""


class StatusReport(WireModel):
    """Body of ``POST /satellites/sync``: the original's keys, then ours."""

    name: _Text
    activity: _Text = ""
    state_report_interval: _Text = ""
    """A Go duration such as ``30s``: when the next report is due."""
    latest_state_digest: _Text = ""
    """Digest of the satellite state that was applied."""
    latest_config_digest: _Text = ""
    memory_used_bytes: int = Field(default=0, ge=0)
    storage_used_bytes: int = Field(default=0, ge=0)
    cpu_percent: float = Field(default=0, ge=0)
    request_created_time: datetime | None = None
    last_sync_duration_ms: int = Field(default=0, ge=0)
    image_count: int = Field(default=0, ge=0)
    cached_images: list[CachedImage] = Field(default_factory=list, max_length=LIST_MAX_LENGTH)
    applied_at: datetime | None = None
    """When the site last was wholly on ``latest_state_digest``."""
    groups: list[AppliedGroup] = Field(default_factory=list, max_length=LIST_MAX_LENGTH)
    copied_count: int = Field(default=0, ge=0)
    deleted_count: int = Field(default=0, ge=0)
    bytes_from_source: int = Field(default=0, ge=0)
    failures: list[ImageFailure] = Field(default_factory=list, max_length=LIST_MAX_LENGTH)
    decisions: list[ImageDecision] = Field(default_factory=list, max_length=LIST_MAX_LENGTH)
    """Of the last run that decided anything; an image that is not named was kept because a group wants it."""
    bytes_today: int = Field(default=0, ge=0)
    """Read from the source, by the site's calendar."""
    bytes_this_month: int = Field(default=0, ge=0)
    is_rolled_back: bool = False
    """Whether an operator at the site went back to the previous generation, and it stays there."""
    storage_free_bytes: int | None = Field(default=None, ge=0)
    """Free bytes of the disk that the local registry fills; None: the site did not say."""
    link_bytes_per_second: int | None = Field(default=None, ge=0)
    """How fast the source was read by the last run that read enough of it to tell."""
    is_as_before: bool = False
    """Whether all that is left out is as in the last report that Ground Control took: then only times, disk and bytes
    are here."""
    own_schedule: _Text = ""
    """5-field cron that was set at the site, and stands above the centre's; empty: none."""
    own_timezone: _Text = ""
    """IANA name that was set at the site, and stands above the centre's; empty: none."""
    news_digest: Annotated[str, Field(pattern=r"^(?:[0-9a-f]{64})?$")] = ""
    """One word for all that is news in the report, or in the one that it is as; see ``state/news.py``. Empty: the
    original's satellites do not say, nor can they be as before."""
    dropped_receipts: int = Field(default=0, ge=0)
    """How many reports of runs the site could not keep until now, since the last one that was taken."""


class ReportAnswer(WireModel):
    """The answer to a status report; the original's is empty, and so is one of ours with nothing to say."""

    is_renewal_due: bool = False
    """Whether the site shall fetch a new credential, by ``POST /satellites/credential``."""
    is_report_wanted: bool = False
    """Whether Ground Control lacks the report that one "as before" leans on: the site shall send a whole one."""
    is_short_taken: bool = False
    """Whether reports may be "as before", and compressed by gzip; said of each that has a ``news_digest``."""


class CredentialRenewal(WireModel):
    """What a site posts, with the credential that it has, for a new one; the answer is a ``RegistryAuth``."""

    renewal_key: SecretStr
    """Random text that the site made and stored before asking: who repeats it has lost the answer."""
