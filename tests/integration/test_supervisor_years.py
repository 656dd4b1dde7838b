"""What a supervisor must not lose, leak or count wrongly over years of restarts and of people's mistakes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.integration.supervised import SLEEP, Supervised, service

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is Linux's")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def zombies_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    states = {int(one): Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[0] for one in children}
    return [one for one, state in states.items() if state == "Z"]


def memory_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))  # KiB


@pytest.mark.slow
def test_supervisor_two_hundred_restarts_leak_neither_descriptors_nor_zombies_nor_memory(tmp_path: Path) -> None:
    flapping = [service(f"flapping-{number}", "true") for number in range(4)]
    pace = {"first_wait_seconds": 0.001, "longest_wait_seconds": 0.001}

    def have_restarted(supervised: Supervised, count: int) -> bool:
        return all(supervised.seen(one.name).restarts >= count for one in flapping)

    with Supervised(tmp_path, *flapping, pace=pace) as supervised:
        pid = supervised.process.pid
        supervised.wait(lambda: have_restarted(supervised, 5))
        before = descriptors(pid), memory_of(pid)

        supervised.wait(lambda: have_restarted(supervised, 50))

        after = descriptors(pid), memory_of(pid)
        assert after[0] <= before[0] + 1  # one may be open at this moment
        assert after[1] <= before[1] + 1024
        assert len(zombies_of(pid)) <= len(flapping)


def test_supervisor_setting_that_is_empty_reaches_the_child_as_it_is(tmp_path: Path) -> None:
    asking = service("asking", "sh", "-c", f"env > {tmp_path}/env; exec sleep 1000", env={"TAKEN_AWAY": ""})
    with Supervised(tmp_path, asking, HARBOR_SATELLITE_STATUS_LISTEN="", TAKEN_AWAY="secret") as supervised:
        supervised.wait(lambda: (tmp_path / "env").exists() and "PATH=" in (tmp_path / "env").read_text())

        found = (tmp_path / "env").read_text().splitlines()

    assert "HARBOR_SATELLITE_STATUS_LISTEN=" in found
    assert not [line for line in found if line.startswith("TAKEN_AWAY")]


def test_supervisor_restart_that_the_plan_asked_for_is_not_counted(tmp_path: Path) -> None:
    with Supervised(tmp_path, service("one", *SLEEP)) as supervised:
        first = supervised.running("one")
        supervised.plan(service("one", *SLEEP, revision="2"))
        second = supervised.running("one", not_pid=first.pid)
        os.kill(second.pid, 9)

        third = supervised.running("one", not_pid=second.pid)

    assert (second.restarts, third.restarts) == (0, 1)


def test_supervisor_service_with_wrong_settings_is_started_as_soon_as_they_are_mended(tmp_path: Path) -> None:
    settings = tmp_path / "satellite.env"
    settings.write_text("wrong")
    wrong = f"grep -q wrong {settings} && exit 78; exec sleep 1000"
    with Supervised(tmp_path, service("agent", "sh", "-c", wrong, settings_file=str(settings))) as supervised:
        supervised.wait(lambda: supervised.seen("agent").last_end == "exit 78")

        settings.write_text("right")

        assert supervised.running("agent").restarts == 1


def test_supervisor_plan_that_could_not_be_read_for_a_moment_is_read_again(tmp_path: Path) -> None:
    plan = tmp_path / "services.json"
    with Supervised(tmp_path, service("one", *SLEEP)) as supervised:
        supervised.running("one")
        supervised.plan(service("two", *SLEEP))
        plan.rename(tmp_path / "kept")
        plan.mkdir()  # reading it fails, as on a disk that has trouble
        supervised.wait(lambda: "cannot be read" in supervised.log)
        plan.rmdir()
        (tmp_path / "kept").rename(plan)

        supervised.running("two")

        assert supervised.log.count("cannot be read") == 1
