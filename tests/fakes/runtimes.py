"""Real container runtimes on a host of their own: its ``/etc``, ``/run`` and ``/var`` are folders of the test.

Each program runs in a mount namespace in which those three stand where it looks for them. So what ``apply`` wrote is
what the runtime reads, at the paths that it insists on, and nothing of this machine is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from typer.testing import CliRunner

from harbor_satellite.cli.runtime import app
from harbor_satellite.demo import images
from harbor_satellite.satellite.runtime_sample import host_platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harbor_satellite.registry.client import HttpRegistry

_FOLDERS: Final = ("etc", "run", "var/lib", "var/tmp", "var/log", "bin")
_COPIED: Final = ("passwd", "group", "nsswitch.conf", "hosts", "ld.so.cache")
_ENTER: Final = 'for name in etc run var; do mount --bind "$0/$name" "/$name" || exit 97; done; exec "$@"'
_START_SECONDS: Final = 30.0
_PULL_SECONDS: Final = 60.0
_PROJECT: Final = Path(__file__).resolve().parents[2]
_CONTAINERD: Final = """\
# how a shop had it before
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.example/pause:3.9"
    [plugins."io.containerd.grpc.v1.cri".containerd]
      snapshotter = "native"
"""
_CONTAINERD_2: Final = """\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"  # no overlay here
"""


class RuntimeHost:
    """A host whose runtimes are run as they come from their packages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True)
        (root / "var/run").symlink_to("/run")
        for name in _COPIED:
            if Path("/etc", name).is_file():
                shutil.copy2(Path("/etc", name), root / "etc" / name)
        self.put("etc/containers/policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}\n')
        self.put(
            "etc/containers/storage.conf",
            '[storage]\ndriver = "vfs"\ngraphroot = "/var/lib/containers"\nrunroot = "/run/containers"\n',
        )
        self.put("etc/containerd/config.toml", _CONTAINERD)
        if shutil.which("crictl") is None:
            crictl = self.put("bin/crictl", f'#!/bin/sh\nexec {sys.executable} {_PROJECT}/tests/fakes/crictl.py "$@"\n')
            crictl.chmod(0o755)

    def put(self, path: str, text: str) -> Path:
        """Make a file of the host."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def files(self) -> dict[str, bytes]:
        """Return all of its configuration, without the locks that runtimes leave there."""
        found = sorted((self.root / "etc").rglob("*"))
        return {str(path): path.read_bytes() for path in found if path.is_file() and path.suffix != ".lock"}

    def command(self, *argv: str) -> list[str]:
        """Return a command line that runs a program there."""
        return ["unshare", "--mount", "/bin/sh", "-c", _ENTER, str(self.root), *argv]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that programs there have."""
        path = f"{self.root}/bin:{os.environ['PATH']}:/usr/sbin:/sbin"
        return {"PATH": path, "HOME": str(self.root / "var"), "LANG": "C.UTF-8"}

    def run(self, *argv: str, timeout_seconds: float = _PULL_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a program there to its end."""
        return subprocess.run(
            self.command(*argv),
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )

    def edge(self, command: str, *arguments: str, **variables: str) -> str:
        """Say ``edge runtime …`` about this host's files."""
        given = {f"HARBOR_SATELLITE_{name}": value for name, value in variables.items()}
        environment = {"HARBOR_SATELLITE_DATA_DIR": str(self.root / "none"), "HARBOR_SATELLITE_ENV_FILE": "", **given}
        result = CliRunner().invoke(app, [command, "--root", str(self.root), *arguments], env=environment)
        assert result.exit_code == 0, result.output
        return str(result.output)

    @contextmanager
    def daemon(self, *argv: str, is_up: Sequence[str]) -> Iterator[None]:
        """Keep a daemon running there; it is up once a command succeeds."""
        log = self.root / "var/log/daemon.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(self.command(*argv), env=self.environment, stdout=output, stderr=output) as process,
        ):
            try:
                self._wait(process, is_up, log)
                yield
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()

    def _wait(self, process: subprocess.Popen[bytes], is_up: Sequence[str], log: Path) -> None:
        until = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < until:
            if self.run(*is_up).returncode == 0:
                return
            time.sleep(0.1)
        pytest.fail(f"{process.args!r} is not up: {log.read_text(errors='replace')[-3000:]}")


class Containerd:
    """containerd and, through its CRI, what a kubelet would do."""

    name = "containerd"
    program = "containerd"
    plugin = "io.containerd.grpc.v1.cri"

    def __init__(self, host: RuntimeHost) -> None:
        self.host = host

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep it running: it reads where its registries' files are once, when it starts."""
        with self.host.daemon(self.program, is_up=("ctr", "version")):
            yield

    def upstream(self, registry: str, url: str) -> None:
        """Let a registry's name mean a registry of the test, as an operator would have it."""
        # containerd 1.6 refuses a file that has no table of a host.
        text = f'# ours\nserver = "{url}"\n\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
        self.host.put(f"etc/containerd/certs.d/{registry}/hosts.toml", text)

    def has_config_path(self) -> None:
        """Let the files of registries be read before anybody applies anything."""
        text = f'[plugins."{self.plugin}".registry]\n  config_path = "/etc/containerd/certs.d"\n'
        config = self.host.root / "etc/containerd/config.toml"
        config.write_text(f"{config.read_text()}\n{text}")

    def pull(self, image: str, creds: str = "") -> str:
        """Return the digest of the configuration of what was pulled."""
        words = ["--creds", creds] if creds else []
        return _last_word(self.host.run("crictl", "--timeout", "60s", "pull", *words, image))


class Containerd2(Containerd):
    """Its next generation, with a configuration of its own version."""

    program = "containerd2"
    plugin = "io.containerd.cri.v1.images"

    def __init__(self, host: RuntimeHost) -> None:
        super().__init__(host)
        host.put("etc/containerd/config.toml", _CONTAINERD_2)


class Ctr(Containerd):
    """The same, by ``ctr`` and its own option."""

    def pull(self, image: str, creds: str = "") -> str:
        words = ["--user", creds] if creds else []
        folder = "/etc/containerd/certs.d"
        _checked(self.host.run("ctr", "images", "pull", "--snapshotter=native", "--hosts-dir", folder, *words, image))
        listed = _checked(self.host.run("ctr", "images", "ls", f"name=={image}"))
        manifest = next(word for word in listed.stdout.split() if word.startswith("sha256:"))
        found = _checked(self.host.run("ctr", "content", "get", manifest))
        return str(json.loads(found.stdout)["config"]["digest"])


class Podman:
    """Podman, without a daemon."""

    name = "podman"

    def __init__(self, host: RuntimeHost) -> None:
        self.host = host

    @contextmanager
    def running(self) -> Iterator[None]:
        """It has nothing that runs."""
        yield

    def upstream(self, registry: str, url: str) -> None:
        """Let a registry's name mean a registry of the test, as an operator would have it."""
        text = f'# ours\n[[registry]]\nprefix = "{registry}"\nlocation = "{url.partition("//")[2]}"\ninsecure = true\n'
        self.host.put(f"etc/containers/registries.conf.d/10-{registry}.conf", text)

    def pull(self, image: str, creds: str = "") -> str:
        """Return the digest of the configuration of what was pulled."""
        words = ["--creds", creds] if creds else []
        return f"sha256:{_last_word(self.host.run('podman', 'pull', '--quiet', *words, image))}"


class Skopeo(Podman):
    """Skopeo, which reads the same files."""

    def pull(self, image: str, creds: str = "") -> str:
        words = ["--src-creds", creds] if creds else []
        folder = f"/var/lib/{time.monotonic_ns()}"
        _checked(self.host.run("skopeo", "copy", *words, f"docker://{image}", f"dir:{folder}"))
        return str(json.loads((self.host.root / folder[1:] / "manifest.json").read_text())["config"]["digest"])


class PullError(Exception):
    """What a runtime said when it could not pull."""


def _checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if done.returncode:
        raise PullError(done.stderr)
    return done


def _last_word(done: subprocess.CompletedProcess[str]) -> str:
    return _checked(done).stdout.split()[-1]


PROGRAMS: Final = {Containerd: "containerd", Containerd2: "containerd2", Ctr: "ctr", Podman: "podman", Skopeo: "skopeo"}


def make_host(root: Path, program: str) -> RuntimeHost:
    """Return a host for a program, or skip the test where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: mount namespaces want root")
    if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"NOT TESTED: there is no program {program!r} on PATH")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("NOT TESTED: no mount namespaces here")
    return RuntimeHost(root)


def push_small(registry: HttpRegistry, repository: str, content: str) -> str:
    """Push an image under v1; return the digest of its configuration, by which runtimes call it."""
    with registry:
        image = images.push_image(registry, repository, host_platform(), [images.layer(content, 2000)])
        images.tag_image(registry, repository, "v1", image)
        raw = registry.manifest_get(repository, str(image.digest)).raw
    return str(json.loads(raw)["config"]["digest"])


def verify(host: RuntimeHost, url: str, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Say ``edge runtime verify`` on the host itself; return the exit code, and what it found."""
    source = "from harbor_satellite.cli import main; main()"
    command = [sys.executable, "-c", source, "edge", "runtime", "verify", "--target", url, "--output", "json", *options]
    done = host.run(*command)
    return done.returncode, json.loads(done.stdout)["pulls"] if done.stdout else [{"error": done.stderr}]
