from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ci.charts import CHART, COMPOSE, FILLED, filled
from ci.errors import PipelineError, UsageError

PROJECT = Path(__file__).resolve().parents[3]
SATELLITE_REFERENCE = f"ghcr.io/example/satellite@sha256:{'a' * 64}"
GROUND_CONTROL_REFERENCE = f"localhost:5000/example/ground-control@sha256:{'b' * 64}"
DIGESTS = {"satellite": SATELLITE_REFERENCE, "ground-control": GROUND_CONTROL_REFERENCE}


@pytest.fixture(name="texts")
def _texts() -> dict[str, str]:
    """What the checkout has."""
    return {path: (PROJECT / path).read_text(encoding="utf-8") for path in FILLED}


def test_filled_chart_has_version_and_image(texts: dict[str, str]) -> None:
    after = filled(texts, "1.4.0-rc.1", DIGESTS)

    chart = yaml.safe_load(after[f"{CHART}/Chart.yaml"])
    values = yaml.safe_load(after[f"{CHART}/values.yaml"])
    assert (chart["version"], chart["appVersion"]) == ("1.4.0-rc.1", "1.4.0-rc.1")
    assert values["image"]["reference"] == GROUND_CONTROL_REFERENCE


def test_filled_compose_files_have_an_image_that_may_still_be_overridden(texts: dict[str, str]) -> None:
    after = filled(texts, "1.4.0", DIGESTS)

    site = yaml.safe_load(after[f"{COMPOSE}/site.yaml"])["services"]["site"]["image"]
    centre = yaml.safe_load(after[f"{COMPOSE}/centre.yaml"])["services"]
    assert site == f"${{SATELLITE_IMAGE:-{SATELLITE_REFERENCE}}}"
    assert {centre[name]["image"] for name in ("migrate", "prefect", "deploy", "ground-control", "worker")} == {
        f"${{GROUND_CONTROL_IMAGE:-{GROUND_CONTROL_REFERENCE}}}"
    }


def test_filled_changes_nothing_else(texts: dict[str, str]) -> None:
    other = {f"{COMPOSE}/Caddyfile": "version: 0.0.0"}

    after = filled(texts | other, "1.4.0", DIGESTS)

    assert after[f"{COMPOSE}/Caddyfile"] == "version: 0.0.0"
    for path, text in texts.items():
        differing = [line for line in zip(text.splitlines(), after[path].splitlines(), strict=True) if len({*line}) > 1]
        assert len(differing) == (2 if path.endswith("Chart.yaml") else 1)


def test_filled_twice_is_refused_since_nothing_is_left_to_fill_in(texts: dict[str, str]) -> None:
    once = filled(texts, "1.4.0", DIGESTS)

    with pytest.raises(PipelineError, match=r"Chart.yaml has 0 places for version instead of 1"):
        filled(once, "1.5.0", DIGESTS)


@pytest.mark.parametrize("path", FILLED)
def test_filled_file_that_is_missing_is_named(texts: dict[str, str], path: str) -> None:
    del texts[path]

    with pytest.raises(PipelineError, match=re.escape(path)):
        filled(texts, "1.4.0", DIGESTS)


@pytest.mark.parametrize("version", ["1.4", "v1.4.0", "1.4.0rc1", ""])
def test_filled_version_that_is_not_semantic_is_refused(texts: dict[str, str], version: str) -> None:
    with pytest.raises(UsageError, match="is no version of a chart"):
        filled(texts, version, DIGESTS)


@pytest.mark.parametrize("reference", ["", "ghcr.io/example/satellite:1.4.0", "ghcr.io/example/satellite@sha256:abc"])
def test_filled_image_that_is_not_named_by_digest_is_refused(texts: dict[str, str], reference: str) -> None:
    with pytest.raises(UsageError, match="image satellite is"):
        filled(texts, "1.4.0", {**DIGESTS, "satellite": reference})
