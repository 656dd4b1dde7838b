"""The status page: one HTML document without scripts, made from a status. Pure.

For the technician with a laptop or a phone: what is wrong and since when comes first. Whatever a peer has said is
escaped, and the policy lets the browser load and run nothing, so that a name is never more than a name.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape as html_escape
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.log_lines import escape as visible
from harbor_satellite.satellite.disk import show_bytes
from harbor_satellite.satellite.health import health_of, problems_of
from harbor_satellite.satellite.status_words import HEADLINES, Clock, sections_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from harbor_satellite.satellite.health import Problem
    from harbor_satellite.satellite.status import SiteStatus

REFRESH_SECONDS: Final = 30
_IMAGES_SHOWN: Final = 500
_FAILURES_SHOWN: Final = 50
_STYLE: Final = files("harbor_satellite.edge").joinpath("status_page.css").read_text(encoding="utf-8")
_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy of the page."""


def render_page(status: SiteStatus) -> str:
    """Return the page."""
    problems = problems_of(status)
    clock = Clock(status)
    name = status.registration.satellite if status.registration else "This site"
    health = health_of(problems)
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">',
            f"<title>{_text(name)}: {HEADLINES[health]}</title><style>{_STYLE}</style></head><body>",
            f'<header class="{health}"><p>Harbor Satellite</p><h1>{_text(name)}</h1>',
            f'<strong class="health">{HEADLINES[health]}</strong></header><main>',
            *_problems(problems, clock),
            *_tiles(status, clock),
            '<div class="cards">',
            *(_card(section.title, section.rows) for section in sections_of(status)),
            "</div>",
            *_failures(status, clock),
            *_images(status),
            f"</main><footer><p>As of {_text(clock.show(status.made_at))}, anew every {REFRESH_SECONDS} s.</p>",
            '<nav><a href="/status.json">JSON</a> <a href="/metrics">metrics</a> <a href="/healthz">health</a> ',
            '<a href="/readyz">readiness</a></nav></footer></body></html>',
        )
    )


def _text(value: str) -> str:
    return html_escape(visible(value))


def _problems(problems: Iterable[Problem], clock: Clock) -> Iterator[str]:
    items = [
        f'<li class="{problem.severity}" data-kind="{problem.kind}"><p>{_text(problem.text)}</p>'
        + (f"<p class=since>since {_text(clock.both(problem.since))}</p>" if problem.since else "")
        + (f"<code>{_text(problem.advice)}</code>" if problem.advice else "")
        + "</li>"
        for problem in problems
    ]
    if items:
        yield f'<ul class="problems">{"".join(items)}</ul>'


def _tiles(status: SiteStatus, clock: Clock) -> Iterator[str]:
    runs, disk, link = status.runs, status.disk, status.link
    yield '<div class="tiles">'
    yield _tile("Images", str(status.images.count), show_bytes(status.images.size_bytes))
    last = runs.last
    yield _tile("Last run", clock.ago(last.finished_at) if last else "never", last.outcome if last else "")
    if runs.running_since:
        yield _tile("Under way", "now", f"since {clock.show(runs.running_since)}")
    else:
        yield _tile("Next run", clock.ago(runs.next_at) if runs.next_at else "none", _at(runs.next_at, clock))
    if disk:
        used = 100 * (1 - disk.free_bytes / disk.total_bytes) if disk.total_bytes else 100
        tone = "failing" if disk.free_bytes <= disk.reserve_bytes else ""
        yield _tile(
            "Disk free",
            show_bytes(disk.free_bytes),
            f"of {show_bytes(disk.total_bytes)}, {used:.0f} % used",
            used,
            tone,
        )
    cap = link.daily_bytes
    share = min(100.0, 100 * link.bytes_today / cap) if cap else None
    of_cap = f"of {show_bytes(cap)}" if cap is not None else "from the source"
    yield _tile("Read today", show_bytes(link.bytes_today), of_cap, share)
    yield "</div>"


def _at(moment: datetime | None, clock: Clock) -> str:
    return clock.show(moment) if moment else ""


def _tile(label: str, value: str, note: str, percent: float | None = None, tone: str = "") -> str:
    bar = (
        ""
        if percent is None
        else '<svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect width="100" height="4"/>'
        f'<rect class="used" width="{percent:.1f}" height="4"/></svg>'
    )
    return (
        f'<div class="tile {tone}"><h2>{_text(label)}</h2><p class="value">{_text(value)}</p>'
        f"<p>{_text(note)}</p>{bar}</div>"
    )


def _card(title: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f"<dt>{_text(label)}</dt><dd>{_text(text)}</dd>" for label, text in rows)
    return f"<section><h2>{_text(title)}</h2><dl>{body}</dl></section>"


def _failures(status: SiteStatus, clock: Clock) -> Iterator[str]:
    if not status.failures:
        return
    yield f'<section class="list"><h2>Not brought ({len(status.failures)})</h2><table>'
    yield "<tr><th>Image</th><th>Why</th><th>Since</th><th>Next try</th></tr>"
    for failure in status.failures[:_FAILURES_SHOWN]:
        since = clock.both(failure.since, "the last run")
        retry = clock.ago(failure.retry_at) if failure.retry_at else "next run"
        yield f'<tr class="failing"><td>{_text(failure.reference)}</td><td>{_text(failure.reason)}</td>'
        yield f"<td>{_text(since)}</td><td>{_text(retry)}</td></tr>"
    yield f"</table>{_more(len(status.failures) - _FAILURES_SHOWN)}</section>"


def _images(status: SiteStatus) -> Iterator[str]:
    images = status.images
    if not images.count:
        return
    yield f'<section class="list images"><h2>Images ({images.count})</h2><table><tr><th>Image</th><th>Size</th></tr>'
    for image in images.listed[:_IMAGES_SHOWN]:
        size = show_bytes(image.size_bytes) if image.size_bytes is not None else ""
        yield f"<tr><td>{_text(image.reference)}</td><td>{_text(size)}</td></tr>"
    yield f"</table>{_more(images.count - _IMAGES_SHOWN)}</section>"


def _more(count: int) -> str:
    return f'<p>and {count} more, in <a href="/status.json">JSON</a></p>' if count > 0 else ""
