"""Files of a release: the packaged chart and the checksums, the same bytes for the same content. Pure."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from ci.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping


def chart_archive(name: str, files: Mapping[str, bytes], epoch: int) -> bytes:
    """Return a chart as `helm package` writes it: a gzipped tar whose paths begin with the chart's name.

    Args:
        name: the chart's, as in its Chart.yaml.
        files: path in the chart → content.
        epoch: seconds; the date of every file.

    Raises:
        PipelineError: there is no Chart.yaml among the files.
    """
    if "Chart.yaml" not in files:
        raise PipelineError(f"the chart {name} has no Chart.yaml")
    # Helm reads Chart.yaml first where it stands first.
    paths = sorted(files, key=lambda path: (path != "Chart.yaml", path))
    return archive({f"{name}/{path}": files[path] for path in paths}, epoch)


def archive(files: Mapping[str, bytes], epoch: int) -> bytes:
    """Return a gzipped tar of files in the order given, all with one date and owner; scripts may be executed."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime = len(content), epoch
            member.mode = 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), compresslevel=9, mtime=epoch)


def ignored(path: str, patterns: str) -> bool:
    """Return whether a chart's file stays out of its package.

    Args:
        path: in the chart.
        patterns: the text of .helmignore: names and folders (`ci/`), with wildcards; no negation.
    """
    lines = [line.strip() for line in patterns.splitlines() if line.strip() and not line.startswith("#")]
    *folders, name = path.split("/")
    return any(
        fnmatch(part, line.removesuffix("/"))
        for line in lines
        for part in (folders if line.endswith("/") else (*folders, name))
    )


def checksums(files: Mapping[str, bytes]) -> str:
    """Return what `sha256sum --check` reads: digest and name of each file, by name."""
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
