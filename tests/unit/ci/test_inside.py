"""The scripts that run inside containers of the pipeline."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Literal

import pytest

from ci.inside import archive, available, fetch, install, layer, pick, smoke, tree, unpack

_EPOCH = 1_767_225_600


def _folder(path: Path, *, backwards: bool = False) -> Path:
    """Make the same few files, in one order or the other."""
    names = ["b/two", "a/one", "c"]
    for name in reversed(names) if backwards else names:
        tree.add_file(path / name, name, mode=0o755 if name == "c" else 0o644)
    (path / "link").symlink_to("/a/one")
    os.link(path / "c", path / "d")
    return path


def _layer(path: Path, folder: Path) -> Path:
    layer.pack(folder, path, _EPOCH, "a test")
    return path


def test_layer_of_the_same_files_made_in_another_order_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = _folder(tmp_path / "1"), _folder(tmp_path / "2", backwards=True)
    os.utime(second / "c", (1, 1))

    packed = [_layer(tmp_path / f"packed-{each.name}", each) for each in (first, second)]

    one, other = (sorted((path.name, path.read_bytes()) for path in each.iterdir()) for each in packed)
    assert one == other


def test_layer_describes_what_it_holds(tmp_path: Path) -> None:
    packed = _layer(tmp_path / "packed", _folder(tmp_path / "files"))

    described = json.loads((packed / layer.DESCRIPTION).read_text())
    blob = packed / described["digest"].removeprefix("sha256:")
    content = blob.read_bytes()
    assert described["size"] == len(content)
    assert described["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert described["diff_id"] == f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}"
    with tarfile.open(blob) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert list(members) == ["a", "a/one", "b", "b/two", "c", "d", "link"]
    assert {member.mtime for member in members.values()} == {_EPOCH}
    assert members["d"].islnk()
    assert members["link"].linkname == "/a/one"
    assert members["c"].mode == 0o755


def _archive(tmp_path: Path, name: str, architecture: str) -> Path:
    config = {"os": "linux", "architecture": architecture, "config": {"User": "65532:65532"}}
    about = {"created": "2026-01-01T00:00:00Z", "annotations": {"a": "b"}, "config": config}
    layers = [_layer(tmp_path / name / str(number), _folder(tmp_path / name / f"files-{number}")) for number in (0, 1)]
    root, blobs = archive.image(layers, about)
    file = tmp_path / f"{name}.tar"
    archive.write(file, root, blobs, "satellite")
    return file


def test_archive_of_two_platforms_is_an_index_whose_every_digest_is_right(tmp_path: Path) -> None:
    images = [archive.read(_archive(tmp_path, name, name), tmp_path / "scratch") for name in ("amd64", "s390x")]

    root, blobs = archive.index(images, {"annotations": {"a": "b"}})
    archive.write(tmp_path / "index.tar", root, blobs, "satellite")

    found, content = archive.read(tmp_path / "index.tar", tmp_path / "read")
    assert found == root
    read = {digest: path.read_bytes() for digest, path in content.items() if isinstance(path, Path)}
    assert {digest: f"sha256:{hashlib.sha256(each).hexdigest()}" for digest, each in read.items()} == {
        digest: digest for digest in read
    }
    manifests = json.loads(read[root["digest"]])["manifests"]
    assert [each["platform"] for each in manifests] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "s390x", "os": "linux"},
    ]
    for each in manifests:
        manifest = json.loads(read[each["digest"]])
        config = json.loads(read[manifest["config"]["digest"]])
        assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == len(config["history"]) == 2
        assert config["created"] == "2026-01-01T00:00:00Z"
        assert all(descriptor["digest"] in read for descriptor in manifest["layers"])


def test_archive_made_twice_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = _archive(tmp_path / "x", "amd64", "amd64"), _archive(tmp_path / "y", "amd64", "amd64")

    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("sources", "roots"),
    [
        pytest.param(
            "# deb http://no/debian trixie main\ndeb [signed-by=/k arch=amd64] https://m/debian/ trixie main\n"
            "deb-src http://m/src trixie main\ndeb https://m/debian trixie-updates main\ndeb cdrom:[x]/ trixie main",
            ("https://m/debian",),
            id="one line each",
        ),
        pytest.param(
            "Types: deb\nURIs: http://a/debian http://b/debian/\nSuites: trixie\n\nTypes: deb\nuris: https://c/security\n",
            ("http://a/debian", "http://b/debian", "https://c/security"),
            id="deb822",
        ),
    ],
)
def test_archive_roots_of_a_users_sources(sources: str, roots: tuple[str, ...]) -> None:
    assert fetch.archive_roots(sources) == roots


def test_request_for_puts_the_password_of_a_mirror_into_a_header() -> None:
    request = fetch.request_for("https://me:a%2Fb@mirror/debian", "pool/main/g/gcc/libstdc++6_14~1.deb")

    assert request.full_url == "https://mirror/debian/pool/main/g/gcc/libstdc++6_14~1.deb"
    assert request.get_header("Authorization") == "Basic bWU6YS9i"


def _mirror(path: Path, content: bytes) -> str:
    (path / "pool").mkdir(parents=True)
    (path / "pool/a_1_all.deb").write_bytes(content)
    return path.as_uri()


def _wanted(content: bytes) -> fetch.Wanted:
    return fetch.Wanted(hashlib.sha256(content).hexdigest(), len(content), "pool/a_1_all.deb")


def test_fetch_takes_the_first_archive_that_has_the_bytes_of_the_lock(tmp_path: Path) -> None:
    roots = [(tmp_path / "empty").as_uri(), _mirror(tmp_path / "old", b"other"), _mirror(tmp_path / "good", b"right")]

    file = fetch.fetch(_wanted(b"right"), roots, tmp_path)

    assert file.read_bytes() == b"right"


def test_fetch_without_an_archive_that_has_the_bytes_says_which_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_ATTEMPTS", 1)
    root = _mirror(tmp_path / "old", b"other")

    with pytest.raises(RuntimeError, match=r"pool/a_1_all\.deb .*/old: other bytes than the lock names"):
        fetch.fetch(_wanted(b"right"), [root], tmp_path)

    assert not list(tmp_path.glob("*.deb"))


def test_fetch_keeps_what_is_there_and_replaces_what_is_broken(tmp_path: Path) -> None:
    wanted = _wanted(b"right")
    cached = tmp_path / f"{wanted.sha256}.deb"
    cached.write_bytes(b"right")

    assert fetch.fetch(wanted, [], tmp_path) == cached
    cached.write_bytes(b"rig")
    assert fetch.fetch(wanted, [_mirror(tmp_path / "m", b"right")], tmp_path).read_bytes() == b"right"


def test_parse_wanted_line_without_three_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="unpack"):
        fetch.parse_wanted("abc pool/x.deb\n")


def _deb(path: Path, name: str, files: dict[str, str]) -> None:
    folder = path / f"of-{name}"
    tree.add_file(
        folder / "DEBIAN/control", f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    )
    for file, text in files.items():
        tree.add_file(folder / file, text)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", folder, path / f"{name}_1_all.deb"], check=True)


@pytest.mark.skipif(not shutil.which("dpkg-deb") or os.geteuid() != 0, reason="needs root and Debian's dpkg-deb")
def test_unpack_makes_a_root_file_system_without_running_anything(tmp_path: Path) -> None:
    certificates = {"usr/share/ca-certificates/mozilla/b.crt": "B\n", "usr/share/ca-certificates/mozilla/a.crt": "A"}
    _deb(tmp_path, "ca-certificates", {**certificates, "usr/sbin/update-ca-certificates": "#!/bin/sh"})
    documents = {"usr/share/doc/base-files/copyright": "(c)", "usr/share/doc/base-files/FAQ": "?"}
    _deb(tmp_path, "base-files", {**documents, "usr/bin/program": "", "usr/lib/os-release": ""})
    root = tmp_path / "root"

    unpack.unpack(sorted(tmp_path.glob("*.deb")), root)
    unpack.drop_left_out(root)
    unpack.finish(root)

    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    assert files == {
        "etc/group", "etc/nsswitch.conf", "etc/passwd", "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/program", "usr/lib/os-release", "usr/share/doc/base-files/copyright",
        "var/lib/dpkg/status.d/base-files", "var/lib/dpkg/status.d/ca-certificates",
    }  # fmt: skip
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text() == "A\nB\n"
    assert "Package: base-files\n" in (root / "var/lib/dpkg/status.d/base-files").read_text()
    assert (root / unpack.HOME).stat().st_uid == unpack.USER_ID
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "usr/bin/python3").readlink() == Path("python3.13")


def test_finish_without_certificates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no package brought certificates"):
        unpack.finish(tmp_path)


def test_pip_arguments_resolve_nothing_and_take_wheels_of_the_platform_alone() -> None:
    arguments = install.pip_arguments(Path("/layer"), ["manylinux_2_17_s390x"], ["-r", "x"])

    assert {"--no-deps", "--only-binary=:all:", "--platform=manylinux_2_17_s390x", "--platform=any"} <= set(arguments)
    assert arguments[-2:] == ["-r", "x"]


def test_clean_leaves_nothing_of_the_machine_that_built(tmp_path: Path) -> None:
    tree.add_file(tmp_path / "bin/tool", "#!/usr/local/bin/python3")
    record = "z.py,,\n../../bin/tool,sha256=x,1\na-1.dist-info/direct_url.json,sha256=y,2\na.py,,\n"
    tree.add_file(tmp_path / "a-1.dist-info/RECORD", record)
    tree.add_file(tmp_path / "a-1.dist-info/direct_url.json", "{}")

    install.clean(tmp_path)

    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["RECORD"]
    assert (tmp_path / "a-1.dist-info/RECORD").read_text() == "a.py,,\nz.py,,\n"


def test_script_runs_by_the_images_python() -> None:
    name, text = install.script("tool=package.module:main")

    assert name == "tool"
    assert text.startswith("#!/usr/bin/python3.13\n")
    assert "from package.module import main" in text


def test_find_takes_the_one_file_that_fits_and_refuses_two(tmp_path: Path) -> None:
    tree.add_file(tmp_path / "usr/local/bin/zot-linux-arm64", "")
    assert pick.find(tmp_path, ["usr/local/bin/zot*", "usr/bin/zot*"]).name == "zot-linux-arm64"

    tree.add_file(tmp_path / "usr/bin/zot", "")
    with pytest.raises(RuntimeError, match="2 files fit"):
        pick.find(tmp_path, ["usr/local/bin/zot*", "usr/bin/zot*"])


def elf(machine: int, order: Literal["little", "big"]) -> bytes:
    """Return the start of a program, as far as its machine (elf.h)."""
    return b"\x7fELF\x02" + (b"\x01" if order == "little" else b"\x02") + bytes(12) + machine.to_bytes(2, order)


@pytest.mark.parametrize(
    ("content", "is_right"),
    [
        pytest.param(elf(183, "little"), True, id="arm64"),
        pytest.param(elf(62, "little"), False, id="amd64"),
        pytest.param(elf(183, "big"), True, id="big-endian"),
        pytest.param(b"#!/bin/sh\n" + b"\xb7\x00" * 10, False, id="script"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_check_machine_refuses_a_program_of_another_platform(tmp_path: Path, content: bytes, *, is_right: bool) -> None:
    program = tmp_path / "cosign"
    program.write_bytes(content)

    with contextlib.nullcontext() if is_right else pytest.raises(RuntimeError, match="cosign is for machine"):
        pick.check_machine(program, 183)


def test_compile_folder_makes_byte_code_that_is_never_held_against_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "PYTHON", sys.version_info[:2])
    tree.add_file(tmp_path / "root/usr/lib/module.py", "VALUE = {'a', 'b'}\n")

    tree.compile_folder(tmp_path / "root/usr/lib", tmp_path / "root")

    (compiled,) = (tmp_path / "root/usr/lib/__pycache__").iterdir()
    assert compiled.read_bytes()[4:8] == b"\x01\x00\x00\x00"  # PEP 552: by hash, unchecked
    assert b"/usr/lib/module.py" in compiled.read_bytes()
    assert str(tmp_path).encode() not in compiled.read_bytes()


def test_compile_folder_by_another_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "PYTHON", (3, 9))

    with pytest.raises(RuntimeError, match=r"byte-code for Python 3\.9"):
        tree.compile_folder(tmp_path, tmp_path)


def test_apt_configuration_of_another_architecture_has_nothing_of_the_container_but_its_keys(tmp_path: Path) -> None:
    text = available.configuration(tmp_path, "riscv64", Path("/run/secrets/apt.sources"), "/ca.crt")

    assert 'APT::Architecture "riscv64";' in text
    assert 'Dir::Etc::sourcelist "/run/secrets/apt.sources";' in text
    assert 'Dir::Etc::sourceparts "/dev/null";' in text
    assert 'Acquire::https::CAInfo "/ca.crt";' in text
    assert "trusted" not in text


def test_output_of_a_program_that_fails_is_in_the_error() -> None:
    with pytest.raises(smoke.SmokeError, match=r"ended with 3: .*no such luck"):
        smoke.output(sys.executable, "-c", "import sys; sys.stderr.write('no such luck'); sys.exit(3)")
