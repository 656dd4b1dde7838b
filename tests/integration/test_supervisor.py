"""The supervisor, as a real process over real children."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from harbor_satellite.edge.services import PLAN_FILE, RESTART_NOW, Probe
from tests.integration.supervised import DEAF, PACE, SLEEP, Supervised, became, is_gone, python, service
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is Linux's")

_SERVER = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", {port}), Answer).serve_forever()
"""


_PATIENT: Final = {"hold_seconds": 20.0, "ready_seconds": 20.0}


def probed(port: int, **more: float) -> Probe:
    settings = {"interval_seconds": 0.05, "timeout_seconds": 0.2, "grace_seconds": 0.3, **more}
    return Probe(f"http://127.0.0.1:{port}/v2/", failures=2, **settings)


def test_supervisor_child_killed_is_started_again(tmp_path: Path) -> None:
    with Supervised(tmp_path, service("one", *SLEEP)) as supervised:
        first = supervised.running("one")

        os.kill(first.pid, signal.SIGKILL)

        second = supervised.running("one", not_pid=first.pid)
        assert (second.restarts, second.last_end) == (1, "signal 9")


def test_supervisor_child_that_fails_is_started_ever_later(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    failing = service("one", "sh", "-c", f"date +%s%N >> {marks}; exit 1")

    with Supervised(tmp_path, failing) as supervised:
        supervised.wait(lambda: marks.exists() and len(marks.read_text().split()) >= 5)
        seen = supervised.wait(lambda: [one for one in [supervised.seen("one")] if one.last_end])[0]

    starts = [int(mark) / 1e9 for mark in marks.read_text().split()[:5]]
    waits = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert seen.last_end == "exit 1"
    assert sum(waits[2:]) > sum(waits[:2])
    assert sum(waits) >= 0.75 * (0.05 + 0.1 + 0.2 + 0.2)


def test_supervisor_child_that_asks_for_it_is_started_at_once(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    asking = service(
        "one", "sh", "-c", f"echo >> {marks}; test $(wc -l < {marks}) -lt 3 && exit {RESTART_NOW}; exec sleep 99"
    )

    with Supervised(tmp_path, asking) as supervised:
        seen = supervised.running("one", restarts=2)

        assert seen.last_end == "exit 75"
        assert supervised.log.count("wait_seconds=0.0") == 2


def test_supervisor_configuration_error_waits_longest(tmp_path: Path) -> None:
    with Supervised(tmp_path, service("one", "sh", "-c", "exit 78"), service("two", *SLEEP)) as supervised:
        supervised.running("two")

        seen = supervised.wait(lambda: [one for one in [supervised.seen("one")] if one.next_start_at])[0]
        assert seen.next_start_at - time.time() > PACE["configuration_wait_seconds"] * 0.6


def test_supervisor_program_that_is_not_there_says_so_and_tries_again(tmp_path: Path) -> None:
    with Supervised(tmp_path, service("one", "no-such-program-anywhere")) as supervised:
        supervised.wait(lambda: supervised.seen("one").restarts >= 2)

        assert "cannot start no-such-program-anywhere: [Errno 2]" in supervised.log
        assert supervised.seen("one").last_end == "exit 127"


def test_supervisor_child_that_answers_is_left_alone_and_stopped_one_is_replaced(tmp_path: Path) -> None:
    port = free_port()
    server = python("one", _SERVER.format(port=port), probe=probed(port, timeout_seconds=2.0, grace_seconds=1000.0))

    with Supervised(tmp_path, server, service("two", *SLEEP), pace=_PATIENT) as supervised:
        first = supervised.running("one")
        supervised.running("two")  # which waits for the first one's answer
        time.sleep(1.0)
        untouched = supervised.seen("one")
        os.kill(first.pid, signal.SIGSTOP)  # the kernel accepts connections for it, and nobody answers

        second = supervised.running("one", not_pid=first.pid)

        assert untouched == first
        assert second.last_end == "silent"
        assert is_gone(first.pid)


def test_supervisor_child_that_has_answered_is_replaced_within_its_grace_once_it_is_silent(tmp_path: Path) -> None:
    port = free_port()
    server = python("one", _SERVER.format(port=port), probe=probed(port, grace_seconds=1000.0))

    with Supervised(tmp_path, server, service("two", *SLEEP), pace=_PATIENT) as supervised:
        first = supervised.running("one")
        supervised.running("two")  # which waits for the first one's answer
        os.kill(first.pid, signal.SIGSTOP)

        assert supervised.running("one", not_pid=first.pid).last_end == "silent"


def test_supervisor_child_that_never_answers_is_replaced_after_its_grace(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # accepts, and says nothing
        one = service("one", *SLEEP, probe=probed(silent.getsockname()[1], grace_seconds=0.6))
        began = time.monotonic()
        with Supervised(tmp_path, one) as supervised:
            seen = supervised.running("one", restarts=1)

            assert time.monotonic() - began > 0.6
            assert seen.last_end == "silent"


def test_supervisor_file_not_touched_is_silence(tmp_path: Path) -> None:
    touched, forgotten = tmp_path / "touched", tmp_path / "forgotten"
    toucher = service(
        "well", "sh", "-c", f"while :; do touch {touched}; sleep 0.1; done", alive_file=str(touched), alive_seconds=0.8
    )
    sleeper = service("stuck", *SLEEP, alive_file=str(forgotten), alive_seconds=0.8)

    with Supervised(tmp_path, toucher, sleeper) as supervised:
        seen = supervised.running("stuck", restarts=1)

        assert seen.last_end == "silent"
        assert supervised.seen("well").restarts == 0


def test_supervisor_sigterm_ends_all_in_time_the_last_one_first(tmp_path: Path) -> None:
    said = f"trap 'echo $NAME >> {tmp_path}/ends; exit 0' TERM; while :; do sleep 1000 & wait; done"
    polite = [service(name, "sh", "-c", said, env={"NAME": name}) for name in ("first", "second")]

    with Supervised(tmp_path, *polite, service("deaf", *DEAF)) as supervised:
        pids = [supervised.running(name).pid for name in ("first", "second", "deaf")]
        supervised.wait(lambda: all(became(pid, "sh") for pid in pids))

        status, seconds = supervised.stop()

    assert status == 0
    assert seconds < PACE["stop_seconds"] + 1
    assert all(is_gone(pid) for pid in pids)
    assert (tmp_path / "ends").read_text().split() == ["second", "first"]


def test_supervisor_killed_takes_the_children_with_it(tmp_path: Path) -> None:
    with Supervised(tmp_path, service("one", *SLEEP), service("two", *SLEEP)) as supervised:
        pids = [supervised.running(name).pid for name in ("one", "two")]
        supervised.wait(lambda: all(became(pid, "sleep") for pid in pids))

        supervised.process.kill()

        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not all(is_gone(pid) for pid in pids):
            time.sleep(0.01)
        assert all(is_gone(pid) for pid in pids)


def test_supervisor_new_plan_starts_stops_and_restarts_what_changed(tmp_path: Path) -> None:
    same, gone = service("same", *SLEEP), service("gone", *SLEEP)
    with Supervised(tmp_path, same, gone, service("other", *SLEEP, revision="1")) as supervised:
        before = {name: supervised.running(name).pid for name in ("same", "gone", "other")}

        supervised.plan(same, service("new", *SLEEP), service("other", *SLEEP, revision="2"))

        supervised.running("new")
        other = supervised.running("other", not_pid=before["other"])
        supervised.wait(lambda: not supervised.seen("gone").pid)
        assert other.last_end == "signal 15"
        assert supervised.seen("same").pid == before["same"]
        assert is_gone(before["gone"])


def test_supervisor_waits_for_a_child_that_is_slow_to_end_without_spinning(tmp_path: Path) -> None:
    port = free_port()
    program = "import signal; signal.signal(15, signal.SIG_IGN);" + _SERVER.format(port=port)
    slow = python("one", program, probe=probed(port))
    with Supervised(tmp_path, slow) as supervised:
        first = supervised.running("one")
        supervised.wait(lambda: is_connectable(port))
        before = cpu_seconds(supervised.process.pid)

        supervised.plan(python("one", program, probe=probed(port), revision="2"))
        supervised.running("one", not_pid=first.pid)

        assert supervised.seen("one").last_end == "signal 9"
        assert cpu_seconds(supervised.process.pid) - before < 0.4 * PACE["stop_seconds"]


def is_connectable(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"services": [7]}', '{"services": [{"name": "one", "argv": [], "probe": null}]}'],
    ids=["empty", "cut", "list", "number", "no argv"],
)
def test_supervisor_damaged_plan_keeps_what_runs_and_says_so_once(tmp_path: Path, content: str) -> None:
    with Supervised(tmp_path, service("one", *SLEEP)) as supervised:
        pid = supervised.running("one").pid

        (tmp_path / PLAN_FILE).write_text(content)
        supervised.wait(lambda: "the plan is damaged" in supervised.log)
        time.sleep(3 * PACE["look_seconds"])

        assert supervised.log.count("the plan is damaged") == 1
        assert supervised.seen("one").pid == pid


def test_supervisor_plan_removed_keeps_what_runs(tmp_path: Path) -> None:
    with Supervised(tmp_path, service("one", *SLEEP)) as supervised:
        pid = supervised.running("one").pid

        (tmp_path / PLAN_FILE).unlink()
        time.sleep(3 * PACE["look_seconds"])

        assert supervised.seen("one").pid == pid
        assert not is_gone(pid)


def test_supervisor_reaps_orphans_and_what_a_dead_child_left(tmp_path: Path) -> None:
    left = tmp_path / "left"
    daemon = tmp_path / "daemon"
    escaping = f"sleep 0.1 & sleep 0.1 & sleep 1000 & echo $! > {daemon}"
    forks = f"sleep 1000 & echo $! > {left}; setsid sh -c '{escaping}' & sleep 0.3; exit 1"

    with Supervised(tmp_path, service("one", "sh", "-c", forks)) as supervised:
        supervised.wait(lambda: supervised.seen("one").restarts)
        orphan = int(left.read_text())
        supervised.wait(lambda: is_gone(orphan))
        supervised.wait(lambda: not zombies_of(supervised.process.pid))

        supervised.stop()
    assert is_gone(int(daemon.read_text()))


def zombies_of(parent: int) -> list[int]:
    found = []
    for pid in os.listdir("/proc"):  # noqa: PTH208
        try:
            with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
                state, its_parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if (state, its_parent) == ("Z", str(parent)):
            found.append(int(pid))
    return found


def test_supervisor_tells_systemd_when_ready_and_that_it_lives(tmp_path: Path) -> None:
    port = free_port()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        server = python("one", _SERVER.format(port=port), probe=probed(port))
        shown = service("two", "sh", "-c", f"env > {tmp_path}/env; exec sleep 99")

        with Supervised(tmp_path, server, shown, **environment) as supervised:
            words = [manager.recv(1000).decode()]
            while sum(word == "WATCHDOG=1" for word in words) < 2 or "READY=1" not in words:
                words.append(manager.recv(1000).decode())
            supervised.wait(lambda: (tmp_path / "env").exists() and became(supervised.seen("two").pid, "sleep"))
            supervised.stop()
        words.append(manager.recv(1000).decode())
        while not words[-1].startswith("STOPPING=1"):
            words.append(manager.recv(1000).decode())

    assert "STATUS=one runs, two runs" in words
    assert "NOTIFY_SOCKET" not in (tmp_path / "env").read_text()


def test_supervisor_disk_full_goes_on(tmp_path: Path) -> None:
    with Supervised(tmp_path, service("one", *SLEEP)) as supervised:
        first = supervised.running("one")
        # What the file would be written to is a folder: no file takes its place, as on a full disk.
        (tmp_path / "services-seen.json").unlink()
        (tmp_path / "services-seen.json").mkdir()

        os.kill(first.pid, signal.SIGKILL)

        supervised.wait(lambda: supervised.log.count("started service=one") == 2)
        supervised.wait(lambda: supervised.log.count("cannot write what is seen") == 1)


def test_supervisor_is_small_and_cheap(tmp_path: Path) -> None:
    port = free_port()
    server = python("one", _SERVER.format(port=port), probe=probed(port))

    with Supervised(tmp_path, server, service("two", *SLEEP)) as supervised:
        supervised.running("two")
        supervised.wait(lambda: supervised.seen("one").pid)
        with open(f"/proc/{supervised.process.pid}/status") as file:  # noqa: PTH123
            fields = dict(line.split(":", 1) for line in file)

    assert int(fields["VmHWM"].split()[0]) < 20_000, fields["VmHWM"]
