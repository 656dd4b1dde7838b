from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from harbor_satellite.errors import ConflictError, HostError, InvalidInputError, StorageError
from harbor_satellite.host_config.rendered import MirrorSettings
from harbor_satellite.satellite.host import Host
from harbor_satellite.satellite.host_record import HostRecord
from tests.unit.satellite.hosts import CONFIG, DAEMON, DEBIAN, DROP_IN, MIRRORS, Reloads, put, seen


@pytest.fixture(autouse=True)
def _disk_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def reloads() -> Reloads:
    return Reloads()


@pytest.fixture
def host(tmp_path: Path, reloads: Reloads) -> Host:
    (tmp_path / "root/etc").mkdir(parents=True)
    return Host(tmp_path / "root", reloads)


@pytest.fixture
def root(tmp_path: Path, host: Host) -> Path:
    return tmp_path / "root"


def test_plan_writes_nothing(host: Host, root: Path, reloads: Reloads) -> None:
    put(root, CONFIG, DEBIAN)
    before = seen(root)

    plan = host.plan("containerd", MIRRORS)

    assert seen(root) == before
    assert not host.folder.exists()
    assert (plan.actions, reloads.told) == (("restart containerd.service",), [])
    assert "+  config_path" in plan.changes[-1].diff()


def test_apply_keeps_the_mode_of_what_is_there(host: Host, root: Path) -> None:
    config = put(root, CONFIG, DEBIAN, 0o640)

    host.apply("containerd", MIRRORS)
    host.apply("containerd", replace(MIRRORS, local_url="http://127.0.0.1:8600"))

    assert config.stat().st_mode & 0o777 == 0o640
    assert (root / "etc/containerd/certs.d/docker.io/hosts.toml").stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_apply_and_undo_keep_the_owner(host: Host, root: Path) -> None:
    config = put(root, CONFIG, DEBIAN)
    os.chown(config, 1234, 4321)

    host.apply("containerd", MIRRORS)
    applied = config.stat()
    host.undo("containerd")

    assert [(one.st_uid, one.st_gid) for one in (applied, config.stat())] == [(1234, 4321)] * 2


@pytest.mark.parametrize("target", ["/srv/config.toml", "../../srv/config.toml"], ids=["absolute", "relative"])
def test_apply_writes_through_a_link_within_the_root(host: Host, root: Path, target: str) -> None:
    real = put(root, "srv/config.toml", DEBIAN)
    (root / "etc/containerd").mkdir()
    (root / CONFIG).symlink_to(target)
    before = seen(root)

    host.apply("containerd", MIRRORS)

    assert "config_path" in real.read_text()
    assert str((root / CONFIG).readlink()) == target
    host.undo("containerd")
    assert seen(root) == before


def test_apply_link_that_would_leave_the_root_stays_within(host: Host, root: Path) -> None:
    outside = put(root.parent, "outside.toml", DEBIAN)
    (root / "etc/containerd").mkdir()
    (root / CONFIG).symlink_to("../../../outside.toml")

    host.apply("containerd", MIRRORS)

    assert outside.read_text() == DEBIAN
    assert (root / "outside.toml").exists()


def test_apply_links_in_a_circle_are_an_error(host: Host, root: Path) -> None:
    (root / "etc/containerd").mkdir()
    (root / CONFIG).symlink_to("config.toml")

    with pytest.raises(StorageError, match="symbolic links"):
        host.apply("containerd", MIRRORS)


def test_apply_new_settings_start_from_what_was_before_us(host: Host, root: Path) -> None:
    put(root, DAEMON, '{"registry-mirrors": ["https://theirs"]}')
    host.apply("docker", MIRRORS)

    host.apply("docker", MirrorSettings("http://127.0.0.1:8600"))

    assert "8585" not in (root / DAEMON).read_text()
    assert "8600" in (root / DAEMON).read_text()


def test_apply_registry_that_is_no_longer_wanted_is_put_back(host: Host, root: Path) -> None:
    put(root, CONFIG, DEBIAN)
    host.apply("containerd", MIRRORS)

    host.apply("containerd", replace(MIRRORS, registries=("docker.io",)))

    assert not (root / "etc/containerd/certs.d/harbor.example.com:8443").exists()
    assert (root / "etc/containerd/certs.d/docker.io/hosts.toml").exists()


def test_apply_what_others_changed_stays_and_undo_keeps_it_too(host: Host, root: Path) -> None:
    config = put(root, CONFIG, DEBIAN)
    host.apply("containerd", MIRRORS)
    config.write_text("oom_score = -999\n" + config.read_text())

    plan = host.apply("containerd", MIRRORS)

    assert not [change for change in plan.changes if change.is_change]
    host.undo("containerd")
    assert config.read_text() == "oom_score = -999\n" + DEBIAN


def test_undo_changed_since_refuses_and_shows_the_change(host: Host, root: Path) -> None:
    config = put(root, CONFIG, DEBIAN)
    host.apply("containerd", MIRRORS)
    config.write_text("oom_score = -999\n" + config.read_text())
    changed = seen(root)

    with pytest.raises(ConflictError, match=r"\+oom_score = -999"):
        host.undo("containerd")

    assert seen(root) == changed


def test_undo_forced_is_exact_and_keeps_a_copy_of_their_change(host: Host, root: Path) -> None:
    config = put(root, CONFIG, DEBIAN)
    before = seen(root)
    host.apply("containerd", MIRRORS)
    config.write_text("oom_score = -999\n")

    host.undo("containerd", is_forced=True)

    assert seen(root) == before
    assert [path.read_text() for path in (host.folder / "replaced").iterdir()] == ["oom_score = -999\n"]


UPGRADED = 'version = 2\n# from the next package\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = ""\n'


def test_apply_file_that_an_upgrade_replaced_starts_from_the_new_one(host: Host, root: Path) -> None:
    config = put(root, CONFIG, DEBIAN)
    host.apply("containerd", MIRRORS)
    config.write_text(UPGRADED)

    host.apply("containerd", MIRRORS)

    assert "certs.d" in config.read_text()
    host.undo("containerd")
    assert config.read_text() == UPGRADED


def test_undo_file_that_an_upgrade_replaced_stays_as_it_is(host: Host, root: Path) -> None:
    config = put(root, CONFIG, DEBIAN)
    host.apply("containerd", MIRRORS)
    config.write_text(UPGRADED)

    host.undo("containerd")

    assert config.read_text() == UPGRADED
    assert not (root / "etc/containerd/certs.d").exists()
    assert host.configured() == {}


def test_apply_lines_of_ours_that_others_changed_are_a_conflict_until_forced(host: Host, root: Path) -> None:
    put(root, DAEMON, "{}\n")
    host.apply("docker", MIRRORS)
    daemon = root / DAEMON
    daemon.write_text(daemon.read_text().replace("8585", "9999"))

    with pytest.raises(ConflictError, match="9999"):
        host.apply("docker", MIRRORS)

    host.apply("docker", MIRRORS, is_forced=True)
    assert "9999" not in daemon.read_text()


def test_apply_file_of_ours_that_somebody_removed_is_written_again(host: Host, root: Path) -> None:
    host.apply("podman", MIRRORS)
    (root / DROP_IN).unlink()

    host.apply("podman", MIRRORS)

    assert (root / DROP_IN).exists()


def test_apply_file_of_theirs_that_somebody_removed_is_a_conflict(host: Host, root: Path) -> None:
    put(root, DAEMON, "{}")
    host.apply("docker", MIRRORS)
    (root / DAEMON).unlink()

    with pytest.raises(ConflictError, match="changed since"):
        host.apply("docker", MIRRORS)


def test_undo_file_that_two_runtimes_share_stays_until_the_last(host: Host, root: Path) -> None:
    before = seen(root)
    host.apply("crio", MIRRORS)
    host.apply("podman", MIRRORS)

    host.undo("crio")
    is_there = (root / DROP_IN).exists()
    host.undo("podman")

    assert is_there
    assert seen(root) == before


def test_apply_crio_after_podman_is_told_to_read_the_file(host: Host, reloads: Reloads) -> None:
    host.apply("podman", MIRRORS)

    host.apply("crio", MIRRORS)

    assert reloads.told == [("crio.service", "reload")]


def test_apply_without_a_change_reloads_nothing(host: Host, root: Path, reloads: Reloads) -> None:
    put(root, DAEMON, "{}")
    host.apply("docker", MIRRORS)
    told = len(reloads.told)

    host.apply("docker", MIRRORS)

    assert (told, len(reloads.told)) == (1, 1)
    assert reloads.mirrors == ("http://127.0.0.1:8585",)


def test_apply_hosts_file_alone_needs_no_restart(host: Host, root: Path, reloads: Reloads) -> None:
    put(root, CONFIG, DEBIAN)
    host.apply("containerd", MIRRORS)

    host.apply("containerd", replace(MIRRORS, local_url="http://127.0.0.1:8600"))

    assert reloads.told == [("containerd.service", "restart")]


def test_apply_runtime_that_does_not_come_back_has_its_files_as_they_were(tmp_path: Path) -> None:
    reloads, root = Reloads(refusals=1), tmp_path / "root"
    put(root, DAEMON, '{"debug": true}', 0o600)
    host, before = Host(root, reloads), seen(root)

    with pytest.raises(HostError, match="does not start"):
        host.apply("docker", MIRRORS)

    assert seen(root) == before
    assert len(reloads.told) == 2  # and once more, with its old files
    assert host.configured() == {}
    host.apply("docker", MIRRORS)
    host.undo("docker")
    assert seen(root) == before


def test_apply_other_settings_that_fail_leave_the_record_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "root"
    daemon = put(root, DAEMON, '{\n  "debug": true\n}\n')
    before = seen(root)
    Host(root, Reloads()).apply("docker", MIRRORS)
    with pytest.raises(HostError):
        Host(root, Reloads(refusals=1)).apply("docker", replace(MIRRORS, local_url="http://127.0.0.1:8600"))
    daemon.write_text(daemon.read_text().replace("true", "false"))

    Host(root, Reloads()).apply("docker", MIRRORS)

    assert "8600" not in daemon.read_text()
    daemon.write_text(daemon.read_text().replace("false", "true"))
    Host(root, Reloads()).undo("docker", is_forced=True)
    assert seen(root) | {DAEMON: before[DAEMON]} == before
    assert daemon.read_text() == '{\n  "debug": false\n}\n'  # what they had changed before the last apply


def test_apply_makes_folders_that_everybody_can_read(host: Host, root: Path) -> None:
    old = os.umask(0o077)
    try:
        host.apply("podman", MIRRORS)
    finally:
        os.umask(old)

    assert (root / DROP_IN).parent.stat().st_mode & 0o777 == 0o755
    assert (root / DROP_IN).stat().st_mode & 0o777 == 0o644


def test_undo_runtime_that_does_not_come_back_stays_configured(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root, DAEMON, '{"debug": true}')
    Host(root, Reloads()).apply("docker", MIRRORS)
    applied, host = seen(root), Host(root, Reloads(refusals=1))

    with pytest.raises(HostError):
        host.undo("docker")

    assert seen(root) == applied
    assert set(host.configured()) == {"docker"}


def test_apply_second_file_cannot_be_written_puts_the_first_back(host: Host, root: Path) -> None:
    put(root, "etc/hosts", "127.0.0.1 localhost\n")
    put(root, "etc/docker", "a file where a folder should be")
    before = seen(root)

    with pytest.raises(StorageError, match=r"daemon\.json"):
        host.apply("docker", MIRRORS)

    assert seen(root) == before


def test_apply_file_that_is_no_text_is_refused(host: Host, root: Path) -> None:
    put(root, CONFIG, "").write_bytes(b"version = 2 # \xff\n")

    with pytest.raises(InvalidInputError, match="not UTF-8"):
        host.apply("containerd", MIRRORS)


def test_record_that_others_can_change_is_not_put_into_the_host(host: Host) -> None:
    host.apply("podman", MIRRORS)
    host.folder.chmod(0o777)

    with pytest.raises(StorageError, match="changed by others"):
        host.undo("podman")


def test_record_lost_backup_is_told(host: Host, root: Path) -> None:
    put(root, DAEMON, "{}")
    host.apply("docker", MIRRORS)
    for kept in (host.folder / "files").iterdir():
        kept.unlink()

    with pytest.raises(StorageError, match="is gone"):
        host.undo("docker")


def test_apply_forced_takes_what_is_there_for_a_backup_that_is_lost(host: Host, root: Path) -> None:
    daemon = put(root, DAEMON, "{}")
    host.apply("docker", MIRRORS)
    for kept in (host.folder / "files").iterdir():
        kept.unlink()
    daemon.write_text('{"by": "hand"}')
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")

    with pytest.raises(StorageError, match="--force"):
        host.apply("docker", MIRRORS)
    host.apply("docker", MIRRORS, is_forced=True)

    assert "8585" in daemon.read_text()
    host.undo("docker")
    assert daemon.read_text() == '{"by": "hand"}'


def test_undo_forced_leaves_a_file_whose_backup_is_lost(host: Host, root: Path) -> None:
    daemon = put(root, DAEMON, "{}")
    host.apply("docker", MIRRORS)
    for kept in (host.folder / "files").iterdir():
        kept.unlink()
    daemon.write_text('{"by": "hand"}')

    host.undo("docker", is_forced=True)

    assert daemon.read_text() == '{"by": "hand"}'
    assert host.configured() == {}


def test_apply_while_another_does_waits_and_is_a_conflict_in_the_end(tmp_path: Path) -> None:
    host = Host(tmp_path, Reloads(), patience_seconds=0)

    with host._store.lock(), pytest.raises(ConflictError, match="already"):
        host.apply("podman", MIRRORS)


def test_apply_after_another_is_done_goes_on(tmp_path: Path) -> None:
    host, other = Host(tmp_path, Reloads()), Host(tmp_path, Reloads())
    held = other._store.lock()
    held.__enter__()
    waiting = threading.Timer(0.01, held.__exit__, (None, None, None))
    waiting.start()

    host.apply("podman", MIRRORS)

    waiting.join()
    assert set(host.configured()) == {"podman"}


def test_apply_read_only_disk_says_so_and_nothing_else(host: Host, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, DAEMON, "{}")
    put(root, "etc/hosts", "127.0.0.1 localhost\n")
    real = Path.replace

    def replace_file(path: Path, target: Path) -> Path:
        if "/etc/" in str(target):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace_file)

    with pytest.raises(StorageError, match=r"^cannot write \S+/etc/hosts: Read-only file system$"):
        host.apply("docker", MIRRORS)

    assert host._store.load() == HostRecord()


def test_apply_and_undo_keep_extended_attributes(host: Host, root: Path) -> None:
    daemon = put(root, DAEMON, "{}")
    try:
        os.setxattr(daemon, "user.label", b"container_config_t")
    except OSError:
        pytest.skip("no extended attributes here")

    host.apply("docker", MIRRORS)
    applied = os.getxattr(daemon, "user.label")
    host.undo("docker")

    assert (applied, os.getxattr(daemon, "user.label")) == (b"container_config_t",) * 2


def test_installed_goes_by_traces(host: Host, root: Path) -> None:
    put(root, "usr/bin/podman", "")
    put(root, DAEMON, "{}")

    assert host.installed() == ("podman", "docker")


def test_default_reload_on_another_root_is_left_to_the_operator(tmp_path: Path) -> None:
    put(tmp_path, CONFIG, DEBIAN)

    plan = Host(tmp_path).apply("containerd", MIRRORS)

    assert plan.actions == ("restart containerd.service on the host yourself: its files are written from elsewhere",)
