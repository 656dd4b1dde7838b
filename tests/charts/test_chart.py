"""The chart as it lies there: lint, schema, what its values say of themselves, and what a release makes of it."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from ci.charts import CHART as FOLDER
from ci.charts import FILLED, filled
from tests.charts.rendering import CHART, PROJECT, VALUES, containers, helm, pods

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = CHART / "ci/small.yaml"


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_chart_lints_strictly(path: Path) -> None:
    done = helm("lint", "--strict", CHART, "--values", path)

    assert done.returncode == 0, done.stdout


def test_chart_lints_as_it_is() -> None:
    done = helm("lint", "--strict", CHART)

    assert done.returncode == 0, done.stdout


def test_chart_is_packed_without_its_test_values(tmp_path: Path) -> None:
    done = helm("package", CHART, "--destination", tmp_path)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "harbor-satellite-0.0.0.tgz").stat().st_size < 20_000  # bytes


def _leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path


def test_chart_of_a_release_names_the_image_by_digest(tmp_path: Path) -> None:
    digests = {name: f"registry.example.com/{name}@sha256:{'a' * 64}" for name in ("satellite", "ground-control")}
    texts = filled({path: (PROJECT / path).read_text(encoding="utf-8") for path in FILLED}, "1.4.0-rc.1", digests)
    shutil.copytree(CHART, tmp_path / "chart")
    for name in ("Chart.yaml", "values.yaml"):
        (tmp_path / "chart" / name).write_text(texts[f"{FOLDER}/{name}"], encoding="utf-8")
    values = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
    del values["image"]  # the release's own holds
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    packed = helm("package", tmp_path / "chart", "--destination", tmp_path)
    done = helm(
        "template",
        "centre",
        tmp_path / "harbor-satellite-1.4.0-rc.1.tgz",
        "--kube-version",
        "1.31.0",
        "--values",
        tmp_path / "values.yaml",
    )

    assert packed.returncode == 0, packed.stderr
    assert done.returncode == 0, done.stderr
    rendered = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert {each["image"] for _, pod in pods(rendered) for each in containers(pod)} == {digests["ground-control"]}
    assert {each["metadata"]["labels"]["app.kubernetes.io/version"] for each in rendered} == {"1.4.0-rc.1"}


def test_values_every_one_is_explained() -> None:
    """Each has a comment above it, alone or together with its neighbours; what Kubernetes explains needs none."""
    known = {"requests", "limits", "podAnnotations", "nodeSelector", "tolerations", "affinity", "labels", "annotations"}
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    unexplained = []
    for number, line in enumerate(lines):
        found = re.match(r"^( *)([A-Za-z]+): ", line)
        if not found or found[2] in known:
            continue
        above = number - 1
        while re.match(rf"^{found[1]}[A-Za-z]+: ", lines[above]):
            above -= 1
        is_heading = re.fullmatch(r" *[A-Za-z]+:", lines[above]) is not None
        above -= is_heading  # its comment is for what is below it
        if not lines[above].lstrip().startswith("#"):
            unexplained.append(line.strip())

    assert unexplained == []


def test_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    jsonschema.validate(values, schema)
    for path in _leaves(values):
        place = schema
        for name in path:
            if place["type"] == "object" and "properties" not in place:
                break  # free: names and texts
            place = place["properties"][name]
            place = schema["$defs"][place["$ref"].rpartition("/")[2]] if "$ref" in place else place


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("groundControl.replica=3", "additional properties 'replica' not allowed"),
        ("groundControl.replicas=0", "minimum"),
        ("source.url=https://user:secret@harbor.example.com", "does not match pattern"),
        ("secrets.prefectDatabaseUrl=postgresql://database/prefect", "does not match pattern"),
        ("prefect.settings.PREFECT_SERVER_API_AUTH_STRING=a:b", "PREFECT_SERVER_API_AUTH_STRING"),
        ("groundControl.settings.HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_PASSWORD=a", "SOURCE_PASSWORD"),
        ("prefect.replicas=2", "need prefect.redis.enabled"),
        ("prefect.redis.enabled=true", "secrets.prefectRedisUrl is needed"),
        ("secrets.databaseUrl=", "secrets.databaseUrl is needed"),
        ("serviceMonitor.enabled=true", "secrets.metricsToken is needed"),
        ("signing.enabled=true", "secrets.signingKey is needed"),
        ("secrets.existingSecret=mine", "the Secret mine is yours"),
        ("image.reference=", "which image"),
        ("ingress.host=", "where do the sites reach Ground Control"),
        ("ingress.enabled=false", "groundControl.publicUrl"),
    ],
)
def test_values_that_cannot_work_are_refused(sets: str, said: str) -> None:
    done = helm("template", "centre", CHART, "--kube-version", "1.31.0", "--values", SMALL, "--set", sets)

    assert done.returncode != 0
    assert said in done.stderr
