"""HTTP bodies of rollouts, quotes and pins."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from harbor_satellite.ground_control.api.schemas import Body, Text
from harbor_satellite.ground_control.models import RolloutSatellite
from harbor_satellite.ground_control.rollouts.quotes import Quote, SiteQuote
from harbor_satellite.ground_control.rollouts.rollout_plan import WAVES_LIMIT, Wave
from harbor_satellite.ground_control.rollouts.rollout_view import RolloutView
from harbor_satellite.ground_control.rollouts.rollouts import TIMEOUT_LONGEST, RolloutPlan

_GENERATION_LIMIT = 2**31 - 1  # what both databases hold
_Name = Annotated[str, Field(max_length=128)]
_Seconds = Annotated[int, Field(ge=0, le=TIMEOUT_LONGEST)]


class WaveBody(Body):
    """One wave: a share of all satellites, those with all of these labels, or those named."""

    name: _Name = ""
    percent: Annotated[float | None, Field(gt=0, le=100)] = None
    """Of all satellites of the group, those of earlier waves included."""
    label: Annotated[dict[_Name, _Name] | None, Field(max_length=64)] = None
    satellites: Annotated[list[_Name] | None, Field(max_length=10_000)] = None
    soak_seconds: _Seconds = 0
    """How long the wave is watched before the next one goes."""

    def wave(self) -> Wave:
        """Return it as a value."""
        return Wave(self.name, self.percent, self.label or {}, tuple(self.satellites or ()), self.soak_seconds)


class RolloutRequest(Body):
    """What somebody wants to roll out."""

    group: Text
    generation: Annotated[int | None, Field(ge=1, le=_GENERATION_LIMIT)] = None
    """The newest, if it is left out."""
    waves: Annotated[list[WaveBody], Field(max_length=WAVES_LIMIT)] = Field(
        default_factory=lambda: [WaveBody(percent=100)]
    )
    max_failures: Annotated[int, Field(ge=0, le=_GENERATION_LIMIT)] = 0
    max_failure_percent: Annotated[float | None, Field(ge=0, le=100)] = None
    receipt_timeout_seconds: Annotated[int, Field(ge=1, le=TIMEOUT_LONGEST)] = 3600
    is_rollback: bool = False

    def plan(self) -> RolloutPlan:
        """Return it as a value."""
        return RolloutPlan(
            self.group,
            self.generation,
            tuple(wave.wave() for wave in self.waves),
            self.max_failures,
            self.max_failure_percent,
            self.receipt_timeout_seconds,
            self.is_rollback,
        )


class ReasonBody(Body):
    """Why somebody pauses, ends or turns a rollout round."""

    reason: Text = ""


class WaveProgress(WaveBody):
    """A wave, and how far it has come."""

    total: int
    waiting: int = 0
    released: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0


class RolloutBody(Body):
    """A rollout, and how far it has come."""

    id: int
    group: str
    generation: int
    is_rollback: bool
    state: str
    reason: str
    current_wave: int
    """From 0."""
    max_failures: int
    receipt_timeout_seconds: int
    waves: list[WaveProgress]
    wave_started_at: datetime | None
    wave_settled_at: datetime | None
    created_by: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, view: RolloutView) -> "RolloutBody":
        """Build it from its row and counts."""
        row = view.rollout
        return cls(
            id=row.id,
            group=view.group,
            generation=row.generation,
            is_rollback=row.is_rollback,
            state=row.state,
            reason=row.reason,
            current_wave=row.current_wave,
            max_failures=row.max_failures,
            receipt_timeout_seconds=row.receipt_timeout_seconds,
            waves=[
                WaveProgress(
                    name=wave["name"],
                    percent=wave["percent"],
                    label=wave["labels"] or None,
                    satellites=wave["satellites"] or None,
                    soak_seconds=wave["soak_seconds"],
                    total=sum(view.counts.get(number, {}).values()),
                    **view.counts.get(number, {}),
                )
                for number, wave in enumerate(row.waves)
            ],
            wave_started_at=row.wave_started_at,
            wave_settled_at=row.wave_settled_at,
            created_by=row.created_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


class RolloutSatelliteBody(Body):
    """One satellite's part in a rollout."""

    satellite: str
    wave: int
    state: Literal["waiting", "released", "succeeded", "failed", "skipped"]
    from_generation: int
    released_at: datetime | None
    settled_at: datetime | None
    reason: str

    @classmethod
    def of(cls, row: RolloutSatellite, name: str) -> "RolloutSatelliteBody":
        """Build it from its row."""
        return cls.model_validate(
            {
                "satellite": name,
                "wave": row.wave,
                "state": row.state,
                "from_generation": row.from_generation,
                "released_at": row.released_at,
                "settled_at": row.settled_at,
                "reason": row.reason,
            }
        )


class PinRequest(Body):
    """Which generation a satellite shall stay on; 0: nothing of the group."""

    generation: Annotated[int, Field(ge=0, le=_GENERATION_LIMIT)]


class PinBody(Body):
    """What a satellite follows of a group."""

    satellite: str
    group: str
    generation: int
    is_held: bool
    """Pinned by an operator: no rollout moves it."""
    is_rollback: bool
    """The site is told to take it though it is older."""


class SiteQuoteBody(Body):
    """What a rollout would cost one site; null: not known."""

    satellite: str
    from_generation: int
    bytes_at_most: int | None
    seconds: float | None
    disk_free_bytes: int | None
    fits_on_disk: bool | None
    breaks_caps: list[str]
    """Of ``daily_bytes`` and ``monthly_bytes``, those that the copy goes past."""
    fits_in_window: bool | None
    """Whether the longest of its sync windows is long enough; null: it has none, or the time is not known."""

    @classmethod
    def of(cls, quote: SiteQuote) -> "SiteQuoteBody":
        """Build it from a quote."""
        return cls(
            satellite=quote.satellite,
            from_generation=quote.from_generation,
            bytes_at_most=quote.bytes_at_most,
            seconds=quote.seconds,
            disk_free_bytes=quote.disk_free_bytes,
            fits_on_disk=quote.fits_on_disk,
            breaks_caps=list(quote.breaks_caps),
            fits_in_window=quote.fits_in_window,
        )


class QuoteBody(Body):
    """What a rollout would cost: totals over all satellites, and one page of them."""

    group: str
    generation: int
    total: int
    """Satellites."""
    bytes_at_most: int | None
    """Together; null if that of one is not known. Layers that sites hold already are not known at the centre."""
    longest_seconds: float | None
    """Of the sites whose time is known."""
    unknown_bytes: int
    """Satellites of which the bytes are not known."""
    unknown_seconds: int
    too_little_disk: int
    breaking_caps: int
    too_long_for_window: int
    satellites: list[SiteQuoteBody]

    @classmethod
    def of(cls, quote: Quote) -> "QuoteBody":
        """Build it from a quote."""
        return cls(
            group=quote.group,
            generation=quote.generation,
            total=quote.total,
            bytes_at_most=quote.bytes_at_most,
            longest_seconds=quote.longest_seconds,
            unknown_bytes=quote.unknown_bytes,
            unknown_seconds=quote.unknown_seconds,
            too_little_disk=quote.too_little_disk,
            breaking_caps=quote.breaking_caps,
            too_long_for_window=quote.too_long_for_window,
            satellites=[SiteQuoteBody.of(site) for site in quote.sites],
        )
