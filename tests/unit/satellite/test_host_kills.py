"""Killed at any moment, the next command finds its way: every step of an apply and of an undo is tried."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.rendered import MirrorSettings
from harbor_satellite.satellite.host import Host
from tests.unit.satellite.hosts import CONFIG, DAEMON, DEBIAN, MIRRORS, Reloads, put, seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = ("replace", "unlink", "mkdir", "rmdir")
OTHER = MirrorSettings("http://127.0.0.1:8600")


class KilledError(BaseException):
    """Nothing catches it, as nothing catches a signal 9."""


class Kill:
    """Ends the process at one step of its way through the disk, and keeps it from doing anything after that."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._left: int | None = None
        for name in STEPS:
            patch.setattr(Path, name, self._counted(getattr(Path, name)))

    def after(self, steps: int, act: Callable[[], object]) -> bool:
        """Do something for so many steps; tell whether it came to its end before."""
        self._left = steps
        try:
            act()
        except KilledError:
            return False
        finally:
            self._left = None
        return True

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise KilledError
            return real(*arguments, **options)

        return step


@pytest.fixture(autouse=True)
def _disk_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are killed here, not machines: what is written need not reach the platters."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def kill() -> Iterator[Kill]:
    with pytest.MonkeyPatch.context() as patch:
        yield Kill(patch)


def new_host(root: Path) -> Host:
    shutil.rmtree(root, ignore_errors=True)
    put(root, CONFIG, DEBIAN)
    put(root, DAEMON, '{"debug": true}')
    put(root, "etc/hosts", "127.0.0.1 localhost\n")
    return Host(root, Reloads())


@pytest.mark.parametrize("runtime", [pytest.param("containerd", marks=pytest.mark.slow), "docker"])
def test_apply_killed_anywhere_is_finished_or_undone(tmp_path: Path, kill: Kill, runtime: str) -> None:
    host = new_host(tmp_path / "clean")
    before = seen(tmp_path / "clean")
    host.apply(runtime, MIRRORS)
    applied, root, steps = seen(tmp_path / "clean"), tmp_path / "root", 0
    while not kill.after(steps, partial(new_host(root).apply, runtime, MIRRORS)):
        reloads = Reloads()
        Host(root, reloads).apply(runtime, MIRRORS)
        assert (steps, seen(root)) == (steps, applied)
        assert reloads.told, steps

        kill.after(steps, partial(new_host(root).apply, runtime, MIRRORS))
        Host(root, Reloads()).undo(runtime)
        Host(root, Reloads()).apply("podman", MIRRORS)  # sweeps nothing of others
        Host(root, Reloads()).undo("podman")
        assert (steps, seen(root)) == (steps, before)
        steps += 1
    assert steps > 5


@pytest.mark.parametrize("runtime", [pytest.param("containerd", marks=pytest.mark.slow), "docker"])
def test_apply_of_other_settings_and_undo_killed_anywhere(tmp_path: Path, kill: Kill, runtime: str) -> None:
    root = tmp_path / "root"
    before = (new_host(root), seen(root))[1]

    def applied_before() -> Host:
        host = new_host(root)
        host.apply(runtime, MIRRORS)
        return host

    acts: tuple[Callable[[Host], object], ...] = (
        lambda host: host.apply(runtime, OTHER),
        lambda host: host.undo(runtime),
    )
    for act in acts:
        steps = 0
        while not kill.after(steps, partial(act, applied_before())):
            reloads = Reloads()
            Host(root, reloads).undo(runtime)
            assert (steps, seen(root)) == (steps, before)
            steps += 1
        assert steps > 3


NAMES = st.sampled_from(["docker.io", "quay.io", "harbor.example.com:8443"])
TOML = st.lists(
    st.sampled_from(
        [
            "version = 2",
            "# a comment",
            "",
            "oom_score = -1",
            '[plugins."io.containerd.grpc.v1.cri"]',
            '  sandbox_image = "x"',
            '[plugins."io.containerd.grpc.v1.cri".registry]',
            '  config_path = ""',
            '  config_path = "/etc/containerd/hosts.d"',
            "[plugins]",
            "[metrics]",
        ]
    ),
    max_size=9,
    unique=True,
)
HOSTS = st.lists(
    st.sampled_from(['server = "https://a"', '[host."https://m"]', "  skip_verify = true", "# c", "", "[header]"]),
    max_size=6,
    unique=True,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('aé\\"\n', max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=5,
)
DAEMONS = st.dictionaries(st.sampled_from(["debug", "log-opts", "features"]), JSON, max_size=3) | st.fixed_dictionaries(
    {"registry-mirrors": st.lists(st.sampled_from(["https://a", "https://b"]), max_size=2)}
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_undo_of_apply_is_identity(tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    if data.draw(st.booleans()):
        put(root, CONFIG, end.join(data.draw(TOML)), data.draw(st.sampled_from([0o600, 0o644])))
    for folder in ("certs.d", "hosts.d"):
        if data.draw(st.booleans()):
            put(root, f"etc/containerd/{folder}/{data.draw(NAMES)}/hosts.toml", end.join(data.draw(HOSTS)))
    put(root, DAEMON, json.dumps(data.draw(DAEMONS), indent=data.draw(st.sampled_from([None, 2, "\t"]))))
    put(root, "etc/hosts", data.draw(st.sampled_from(["", "127.0.0.1 a", "::1 a\n"])))
    host, before = Host(root, Reloads()), seen(root)
    mirrors = [
        MirrorSettings("http://127.0.0.1:8585", tuple(data.draw(st.lists(NAMES, max_size=3, unique=True))))
        for _ in range(2)
    ]
    runtimes = data.draw(st.permutations(["containerd", "docker", "crio", "podman"]))

    for runtime in runtimes:
        for wanted in mirrors:
            try:
                host.apply(runtime, wanted)
            except InvalidInputError:
                continue
            applied = seen(root)
            host.apply(runtime, wanted)
            assert seen(root) == applied
    for runtime in data.draw(st.permutations(runtimes)):
        host.undo(runtime)

    assert seen(root) == before
