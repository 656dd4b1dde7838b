"""The packaged chart as an OCI artifact: pushed by digest alone, signed and verified; whoever tags it comes after."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import dagger
from dagger import dag

from ci.signing import Published, signing_steps, verification_steps
from ci.toolbox import WORK, digest_of, failed, fresh
from ci.tools import ORAS

if TYPE_CHECKING:
    from pathlib import Path

    from ci.publication import Signing
    from ci.references import Reference
    from ci.toolbox import Toolbox

# As `helm push` writes them.
_CONFIG: Final = "application/vnd.cncf.helm.config.v1+json"
_CONTENT: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_SCALAR: Final = re.compile(r'^(?P<name>\w+): *"?(?P<value>[^"#\[{>|\n]+?)"? *$', re.MULTILINE)


def chart_config(chart_yaml: str) -> str:
    """Return the artifact's config: what Chart.yaml says on one line each, as JSON."""
    return json.dumps({found["name"]: found["value"] for found in _SCALAR.finditer(chart_yaml)}, sort_keys=True)


def push_arguments(where: Reference, archive: str, *, epoch: int, is_plain_http: bool) -> list[str]:
    """Return oras' arguments that push a chart without a tag; the manifest is written to `manifest.json`.

    Args:
        where: its repository.
        archive: file name of the packaged chart.
        epoch: seconds; the date that the manifest has, so that it is the same again.
        is_plain_http: whether the registry has no TLS.
    """
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        "push",
        *(["--plain-http"] if is_plain_http else []),
        "--config",
        f"config.json:{_CONFIG}",
        "--annotation",
        f"org.opencontainers.image.created={created}",
        "--export-manifest",
        "manifest.json",
        where.name,
        f"{archive}:{_CONTENT}",
    ]


async def push_chart(
    toolbox: Toolbox, archive: Path, config: str, *, where: Reference, epoch: int, signing: Signing
) -> Reference:
    """Push a packaged chart, sign it and verify the signature; return it by digest. It has no tag yet.

    Args:
        toolbox: oras and cosign, with the registry's login.
        archive: the packaged chart, on this machine.
        config: see `chart_config`.
        where: its repository.
        epoch: seconds; see `push_arguments`.
        signing: how.

    Raises:
        PipelineError: a step failed.
    """
    file = dag.host().file(str(archive))
    oras = fresh(
        toolbox.container(ORAS).with_file(f"{WORK}/{archive.name}", file).with_new_file(f"{WORK}/config.json", config)
    )
    argv = push_arguments(where, archive.name, epoch=epoch, is_plain_http=where.registry in toolbox.plain_http)
    pushed = oras.with_exec(argv, use_entrypoint=True)
    try:
        manifest = await pushed.file(f"{WORK}/manifest.json").contents()
    except dagger.ExecError as error:
        raise failed(f"{where.name}: the chart could not be pushed", error) from error
    chart = where.at(digest_of(manifest.encode()))
    image = Published(chart, {})
    await toolbox.run_cosign(signing.cosign, signing_steps(signing.cosign, image), secrets=signing.secrets)
    await toolbox.run_cosign(signing.cosign, verification_steps(signing.cosign, image))
    return chart
