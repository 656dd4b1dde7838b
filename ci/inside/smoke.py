"""Prove that an image works: run in it, on its platform, as its user, by its Python; writes below /tmp alone.

`python3 smoke.py satellite|ground-control VERSION`; the last line it prints is how many seconds it took.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HOST: Final = "127.0.0.1"
SOURCE_PORT: Final = 5101
TARGET_PORT: Final = 5102
ZOT_PORT: Final = 5103
CENTRE_PORT: Final = 8080
USER: Final = "smoke"
PASSWORD: Final = "smoke"  # noqa: S105 - of registries that live for these seconds
REPOSITORY: Final = "smoke/tiny"
_START_SECONDS: Final = 600  # an emulated processor that others use, too
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"

_NEEDS_THE_SERVER: Final = tuple(
    f"harbor_satellite.{part}"
    for part in ("central_automations", "central_service", "demo", "ground_control", "prefect_server")
)
"""Modules that want the whole of Prefect, or a database; the satellite's image has neither."""
_FLOWS_OF_SITES: Final = tuple(
    f"flows.{name}"
    for name in ("audit_registry", "configure_host", "register_satellite", "replicate_state", "report_status")
)
_LOADED_BY_OTHERS: Final = ("harbor_satellite.__main__", "harbor_satellite.ground_control.migrations")
"""Modules that are not imported by name: Alembic runs its own."""


class SmokeError(Exception):
    """The image does not do what it should; the message says what."""


def import_everything(*, with_server: bool) -> int:
    """Import each module of the package, and its flows with their tasks; return how many.

    Args:
        with_server: also what runs at the centre.
    """
    project = importlib.import_module("harbor_satellite.project").project_dir()
    sys.path.insert(0, str(project))
    package = project.parent
    files = [path.relative_to(package.parent) for path in package.rglob("*.py") if project not in path.parents]
    files += [path.relative_to(project) for path in (project / "flows").glob("*.py")]
    left_out = _LOADED_BY_OTHERS if with_server else (*_LOADED_BY_OTHERS, *_NEEDS_THE_SERVER)
    names = sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)
    wanted = [name for name in names if not name.startswith(left_out)]
    if not with_server:
        wanted = [name for name in wanted if not name.startswith("flows.") or name in _FLOWS_OF_SITES]
    for name in wanted:
        importlib.import_module(name)
    return len(wanted)


def output(*argv: str) -> str:
    """Return what a program of the image prints.

    Raises:
        SmokeError: it failed.
    """
    done = subprocess.run(argv, check=False, capture_output=True, text=True)  # noqa: S603 - ours
    if done.returncode:
        raise SmokeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stdout[-2000:]} {done.stderr[-4000:]}")
    return done.stdout.strip()


@contextmanager
def running(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of the image while the block lasts."""
    with subprocess.Popen(argv, env={**os.environ, **(environment or {})}, stdout=sys.stderr) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    """Wait until a process answers 200.

    Raises:
        SmokeError: it ended, or did not within the time.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SmokeError(f"what should listen on port {port} ended with {process.returncode}")
        try:
            status, _ = ask(port, "GET", path)
        except OSError:
            status = 0
        if status == http.client.OK:
            return
        time.sleep(0.2)
    raise SmokeError(f"nothing answered on port {port} within {_START_SECONDS} s")


def ask(port: int, method: str, path: str, body: bytes | None = None, kind: str = _MANIFEST) -> tuple[int, bytes]:
    """Ask a server on this machine, as the user; return the answer's status and body."""
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}", "Accept": _MANIFEST, "Content-Type": kind}
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def push(port: int, platform: str) -> tuple[str, bytes]:
    """Push an image of one small layer; return its digest and its manifest."""
    layer = os.urandom(64 * 1024)
    config = json.dumps(
        {"architecture": platform, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}
    ).encode()
    descriptors = []
    for kind, blob in ((_CONFIG, config), (_LAYER, layer)):
        digest = digest_of(blob)
        _push(port, "POST", f"/v2/{REPOSITORY}/blobs/uploads/?digest={digest}", blob, "application/octet-stream")
        descriptors.append({"mediaType": kind, "digest": digest, "size": len(blob)})
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": descriptors[0], "layers": descriptors[1:]}
    body = json.dumps(manifest).encode()
    _push(port, "PUT", f"/v2/{REPOSITORY}/manifests/1", body, _MANIFEST)
    return digest_of(body), body


def _push(port: int, method: str, path: str, body: bytes, kind: str) -> None:
    status, said = ask(port, method, path, body, kind)
    if status != http.client.CREATED:
        raise SmokeError(f"{method} {path}: {status} {said.decode(errors='replace')}")


def digest_of(content: bytes) -> str:
    """Return content's digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def registry(folder: Path, htpasswd: Path, port: int) -> list[str]:
    """Return the command line of the embedded registry."""
    where = ["--root", str(folder), "--listen", f"{HOST}:{port}", "--htpasswd", str(htpasswd)]
    return ["harbor-satellite", "edge", "registry", *where]


def zot(folder: Path, htpasswd: Path, port: int) -> list[str]:
    """Return the command line of Zot, configured."""
    config = folder / "zot.json"
    auth = {"htpasswd": {"path": str(htpasswd)}}
    document = {
        "storage": {"rootDirectory": str(folder / "zot")},
        "http": {"address": HOST, "port": str(port), "auth": auth},
        "log": {"level": "error"},
    }
    config.write_text(json.dumps(document), encoding="utf-8")
    return ["zot", "serve", str(config)]


def sync_once(folder: Path) -> list[str]:
    """Replicate an image from registry to registry, to each kind of local registry that is there; say what was done."""
    bcrypt = importlib.import_module("bcrypt")
    htpasswd = folder / "htpasswd"
    htpasswd.write_bytes(USER.encode() + b":" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)) + b"\n")
    commands = {
        SOURCE_PORT: registry(folder / "source", htpasswd, SOURCE_PORT),
        TARGET_PORT: registry(folder / "target", htpasswd, TARGET_PORT),
    }
    if shutil.which("zot"):
        commands[ZOT_PORT] = zot(folder, htpasswd, ZOT_PORT)
    with ExitStack() as stack:
        started = {port: stack.enter_context(running(argv)) for port, argv in commands.items()}
        for port, process in started.items():
            wait_for(process, port, "/v2/")
        digest, manifest = push(SOURCE_PORT, os.uname().machine)
        state = folder / "state.json"
        artifact = {"repository": REPOSITORY, "tag": ["1"], "digest": digest}
        source = f"http://{HOST}:{SOURCE_PORT}"
        state.write_text(json.dumps({"group": "smoke", "registry": source, "artifacts": [artifact]}), encoding="utf-8")
        return [_synced(state, folder, port, digest, manifest) for port in commands if port != SOURCE_PORT]


def _synced(state: Path, folder: Path, port: int, digest: str, manifest: bytes) -> str:
    """Replicate into one registry, and read the image there."""
    for side in ("LOCAL_REGISTRY", "SOURCE"):
        os.environ[f"HARBOR_SATELLITE_{side}_USERNAME"] = USER
        os.environ[f"HARBOR_SATELLITE_{side}_PASSWORD"] = PASSWORD
    target = f"http://{HOST}:{port}"
    record = str(folder / f"record-{port}")
    output("harbor-satellite", "edge", "sync", "--state", str(state), "--target", target, "--data-dir", record)
    status, found = ask(port, "GET", f"/v2/{REPOSITORY}/manifests/1")
    if (status, found) != (http.client.OK, manifest):
        raise SmokeError(f"{target} answers {status} with {digest_of(found)}; {digest} was pushed")
    for each in json.loads(manifest)["layers"]:
        status, blob = ask(port, "GET", f"/v2/{REPOSITORY}/blobs/{each['digest']}")
        if (status, digest_of(blob)) != (http.client.OK, each["digest"]):
            raise SmokeError(f"{target} answers {status} for the layer {each['digest']}")
    return f"synced {digest} to {'zot' if port == ZOT_PORT else 'the embedded registry'}"


def serve_once(folder: Path) -> list[str]:
    """Have Ground Control, with its Prefect server, serve from SQLite until it says that it is well."""
    environment = {
        "HARBOR_SATELLITE_GROUND_CONTROL_DATA_DIR": str(folder / "centre"),
        "HARBOR_SATELLITE_GROUND_CONTROL_ADMIN_PASSWORD": "a-password-of-these-seconds-1A",
        "HARBOR_SATELLITE_GROUND_CONTROL_PORT": str(CENTRE_PORT),
        "HOME": str(folder),
    }
    with running(["harbor-satellite", "ground-control", "serve"], environment) as process:
        wait_for(process, CENTRE_PORT, "/healthz")
    return ["ground-control serve answered /healthz"]


def main(image: str, version: str) -> None:
    """Run what the image is for; see the module."""
    started = time.monotonic()
    says = output("harbor-satellite", "--version")
    if says.split()[-1] != version:
        raise SmokeError(f"harbor-satellite --version says {says!r}, not {version}")
    is_centre = image == "ground-control"
    done = [f"{import_everything(with_server=is_centre)} modules imported"]
    if is_centre:
        done.append(f"prefect {output('prefect', '--version')}")
        done.append(next(line for line in output("cosign", "version").splitlines() if line.startswith("GitVersion")))
    with tempfile.TemporaryDirectory() as folder:
        done += serve_once(Path(folder)) if is_centre else sync_once(Path(folder))
    sys.stdout.write("\n".join([says, *done, f"{time.monotonic() - started:.1f}"]) + "\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SmokeError as problem:
        sys.exit(f"smoke: {problem}")
