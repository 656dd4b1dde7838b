"""``edge register`` as a process: who watches `ps` sees no token, and the command says what became of it."""

from __future__ import annotations

import json
import operator
import os
import pty
import select
import ssl
import subprocess
import sys
import termios
from itertools import dropwhile
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests.fakes.claims import SECRET, FakeClaims

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "made-up-token-of-the-shop"
PROGRAM = (sys.executable, "-m", "harbor_satellite")
AS_FUNCTION = (sys.executable, "-c", "from harbor_satellite.cli import main; main()")
_SECONDS = 30.0


@pytest.fixture
def centre() -> Iterator[FakeClaims]:
    with FakeClaims(TOKEN).serving() as fake:
        yield fake


class Command:
    """Runs ``edge register`` with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dropped = folder / "registration.json"
        self.environment = {
            **os.environ,
            "HARBOR_SATELLITE_DATA_DIR": str(folder / "data"),
            "HARBOR_SATELLITE_REGISTRATION_FILE": str(self.dropped),
            "HARBOR_SATELLITE_ENV_FILE": "",
        }

    def start(self, *options: str, program: tuple[str, ...] = PROGRAM) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*program, "edge", "register", *options],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *options: str, given: str = "") -> subprocess.CompletedProcess[str]:
        with self.start(*options) as process:
            out, err = process.communicate(given, timeout=_SECONDS)
        assert TOKEN not in out + err
        assert SECRET not in out + err
        return subprocess.CompletedProcess(options, process.returncode, out, err)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def shows_token(pid: int) -> bool:
    """Tell whether anybody sees the token on a command line, of that process or of another one."""
    seen = False
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            seen |= TOKEN.encode() in path.read_bytes() and path.parent.name == str(pid)
        except OSError:
            continue
    return seen


@pytest.mark.parametrize("program", [PROGRAM, AS_FUNCTION], ids=["console script", "function"])
def test_register_token_is_on_the_command_line_for_a_moment_only(
    command: Command, centre: FakeClaims, program: tuple[str, ...]
) -> None:
    claimed, was_watched = Event(), Event()

    def wait_for_watcher() -> None:
        claimed.set()
        was_watched.wait(_SECONDS)

    centre.before_answer = wait_for_watcher
    seen: list[bool] = []

    with command.start("--ground-control", centre.url, "--token", TOKEN, program=program) as process:
        while not claimed.is_set() and process.poll() is None:
            seen.append(shows_token(process.pid))
        during = [shows_token(process.pid) for _ in range(50)]
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        was_watched.set()
        out, err = process.communicate(timeout=_SECONDS)

    assert (process.returncode, "registered as shop" in out) == (0, True), err
    assert b"edge\0register" in line  # it is the same process, and the one that was watched
    assert not any(during)
    assert TOKEN.encode() not in environment
    shown = list(dropwhile(operator.not_, seen))  # at first it may not have become the program yet
    assert sorted(shown, reverse=True) == shown  # once gone, it does not come back
    assert not seen[-1]
    assert centre.asked == [TOKEN]


def test_register_token_from_standard_input(command: Command, centre: FakeClaims) -> None:
    done = command("--ground-control", centre.url, "--token", "-", given=f"{TOKEN}\n")

    assert (done.returncode, centre.asked) == (0, [TOKEN]), done.stderr


def test_register_asks_for_the_token_on_a_terminal(command: Command, centre: FakeClaims) -> None:
    leader, follower = pty.openpty()
    argv = [*PROGRAM, "edge", "register", "--ground-control", centre.url]
    # The first terminal that the leader of a session opens becomes the one that it is asked on.
    on_terminal = ["sh", "-c", f'exec "$@" 0<>{os.ttyname(follower)} 1>&0 2>&0', "sh", *argv]
    process = subprocess.Popen(on_terminal, env=command.environment, start_new_session=True)
    shown = _read_until(leader, b"One-time token")
    while termios.tcgetattr(follower)[3] & termios.ECHO:  # it asks, and then hides what is typed
        assert process.poll() is None, shown
    os.write(leader, f"{TOKEN}\n".encode())
    shown += _read_until(leader, b"registered as shop")
    process.wait(_SECONDS)
    os.close(leader)
    os.close(follower)

    assert process.returncode == 0
    assert TOKEN.encode() not in shown
    assert centre.asked == [TOKEN]


def _read_until(terminal: int, words: bytes) -> bytes:
    shown = b""
    while words not in shown:
        assert select.select([terminal], [], [], _SECONDS)[0], shown
        shown += os.read(terminal, 1024)
    return shown


def test_register_twice_asks_once_and_needs_no_setting_afterwards(command: Command, centre: FakeClaims) -> None:
    command.dropped.write_text(json.dumps({"ground_control_url": centre.url, "token": TOKEN}))

    first, second = command(), command("--token", "made-up-other")

    assert (first.returncode, second.returncode) == (0, 0)
    assert "registered as shop" in first.stdout
    assert "can be read by all" in first.stderr
    assert "registered already as shop" in second.stdout
    assert centre.asked == [TOKEN]
    assert not command.dropped.exists()


def test_register_with_a_clock_that_is_wrong_says_so(command: Command, tmp_path: Path) -> None:
    certificate, key = _certificate_of_the_future(tmp_path)
    centre = FakeClaims(TOKEN)
    with centre.serving(_server_tls(certificate, key)):
        done = command("--ground-control", centre.url, "--token", TOKEN, "--ca", str(certificate), "--wait", "0")

    assert done.returncode == 1
    assert "certificate is not yet valid" in done.stderr
    assert "this site's clock says" in done.stderr


def _server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _certificate_of_the_future(folder: Path) -> tuple[Path, Path]:
    """Make one by the CA of openssl, which takes dates; `openssl req -x509` of Debian 12 does not."""
    certificate, key, config = folder / "cert.pem", folder / "key.pem", folder / "ca.cnf"
    config.write_text(
        "[ca]\ndefault_ca = own\n[own]\npolicy = any\ndefault_md = sha256\nrand_serial = yes\nx509_extensions = san\n"
        f"database = {folder}/index.txt\nnew_certs_dir = {folder}\n[any]\ncommonName = supplied\n"
        "[san]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = CA:TRUE\n"
    )
    (folder / "index.txt").touch()
    request = f"openssl req -new -newkey rsa:2048 -nodes -keyout {key} -out {folder}/own.csr -subj /CN=gc"
    sign = (
        f"openssl ca -batch -notext -selfsign -config {config} -keyfile {key} -in {folder}/own.csr -out {certificate} "
        "-startdate 20900101000000Z -enddate 20910101000000Z"
    )
    for line in (request, sign):
        subprocess.run(line.split(), check=True, capture_output=True)
    return certificate, key
