"""The official OCI conformance suite against the embedded registry, with every API it knows enabled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_embedded_registry_crash import embedded_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT = re.compile(r"^  (Disabled|Skip|Pass|FAIL|Error|Total)\.+: +(\d+)$", re.MULTILINE)


def run_suite(url: str, results: Path, data: dict[str, str]) -> tuple[dict[str, int], str]:
    program = shutil.which("conformance")
    if program is None:
        pytest.skip("no `conformance` on PATH (opencontainers/distribution-spec/conformance, built with Go)")
    environment = {
        "PATH": os.environ["PATH"],
        "OCI_REGISTRY": url.removeprefix("http://"),
        "OCI_TLS": "disabled",
        # The newest rules: digest headers, cancelling uploads and tags as parameters as well.
        "OCI_VERSION": "dev",
        "OCI_RESULTS_DIR": str(results),
        **data,
    }
    done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=120, check=False)
    counts = {name: int(count) for name, count in COUNT.findall(done.stdout)}
    failures = re.findall(r"^ *.*: FAIL\n +- .*$", done.stdout, re.MULTILINE)
    return counts, "\n".join(failures[:20]) or done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.go_tool
@pytest.mark.parametrize(
    ("mode", "data"),
    [
        pytest.param("strict", {}, id="as-served"),
        pytest.param("sparse", {"OCI_DATA_SPARSE": "true"}, id="content-not-required"),
    ],
)
def test_conformance_every_row_passes(
    mode: str,
    data: dict[str, str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    with embedded_registry(tmp_path / "registry", mode) as (url, _):
        counts, failures = run_suite(url, tmp_path / "results", data)

    record_property("conformance", counts)
    assert counts.get("FAIL") == counts.get("Error") == counts.get("Skip") == 0, failures
    assert counts["Pass"] >= 850
