"""Filling a release into the Helm chart and the compose files: its version, its images by digest. Pure.

What must not live here: which files there are on disk, and how a chart is packed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ci.errors import PipelineError, UsageError
from ci.platforms import GROUND_CONTROL, SATELLITE

if TYPE_CHECKING:
    from collections.abc import Mapping

CHART: Final = "deployments/helm/harbor-satellite"
"""Folder of the chart, in the checkout."""
COMPOSE: Final = "deployments/compose"
"""Folder of the compose files and what they mount."""

_BY_DIGEST: Final = re.compile(r"[a-z0-9][A-Za-z0-9.:/_\[\]-]*@sha256:[0-9a-f]{64}")
_SEMVER: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


@dataclass(frozen=True)
class _Blank:
    """A place in a file that a release fills in."""

    path: str
    pattern: re.Pattern[str]
    """What is there before; the group `keep` stays."""
    what: str
    """`version`, or which image."""
    written: str
    """What is there afterwards, behind `keep`; `{}` is the value."""


_BLANKS: Final = (
    _Blank(f"{CHART}/Chart.yaml", re.compile(r"(?m)(?P<keep>^version: )0\.0\.0$"), "version", "{}"),
    _Blank(f"{CHART}/Chart.yaml", re.compile(r'(?m)(?P<keep>^appVersion: )"0\.0\.0"$'), "version", '"{}"'),
    _Blank(f"{CHART}/values.yaml", re.compile(r'(?m)(?P<keep>^  reference: )""$'), GROUND_CONTROL, '"{}"'),
    _Blank(
        f"{COMPOSE}/centre.yaml",
        re.compile(r"(?P<keep>image: \$\{GROUND_CONTROL_IMAGE):\?[^}]*\}"),
        GROUND_CONTROL,
        ":-{}}}",
    ),
    _Blank(f"{COMPOSE}/site.yaml", re.compile(r"(?P<keep>image: \$\{SATELLITE_IMAGE):\?[^}]*\}"), SATELLITE, ":-{}}}"),
)
FILLED: Final = tuple(sorted({blank.path for blank in _BLANKS}))
"""Files that a release changes, by their path in the checkout."""


def filled(text_by_path: Mapping[str, str], version: str, digests: Mapping[str, str]) -> dict[str, str]:
    """Return the files as a release has them: version and images filled in, everything else as it was.

    Args:
        text_by_path: path in the checkout → content; `FILLED` must be among them, others stay as they are.
        version: semantic, of the release: `1.4.0`, `1.4.0-rc.1`.
        digests: image (`satellite`, `ground-control`) → its reference by digest, `registry/name@sha256:…`.

    Raises:
        UsageError: the version is not semantic, or an image is missing or not named by digest.
        PipelineError: a file is missing, or has not the places that are to be filled in.
    """
    if not _SEMVER.fullmatch(version):
        raise UsageError(f"{version!r} is no version of a chart: wanted is 1.4.0 or 1.4.0-rc.1")
    for image in (SATELLITE, GROUND_CONTROL):
        if not _BY_DIGEST.fullmatch(digests.get(image, "")):
            raise UsageError(f"image {image} is {digests.get(image, '')!r}: wanted is registry/name@sha256:…")
    texts = dict(text_by_path)
    for blank in _BLANKS:
        if blank.path not in texts:
            raise PipelineError(f"there is no {blank.path} to be filled in")
        value = version if blank.what == "version" else digests[blank.what]
        texts[blank.path] = _filled_in(texts[blank.path], blank, value)
    return texts


def _filled_in(text: str, blank: _Blank, value: str) -> str:
    # By a function: a backslash in a template would be read.
    changed, times = blank.pattern.subn(lambda found: found["keep"] + blank.written.format(value), text)
    if times != 1:
        raise PipelineError(f"{blank.path} has {times} places for {blank.what} instead of 1: {blank.pattern.pattern}")
    return changed
