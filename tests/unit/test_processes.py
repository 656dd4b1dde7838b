from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.processes import Child, ChildError, check_port_is_free, free_port

if TYPE_CHECKING:
    from pathlib import Path


def test_child_that_ends_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child("the child", [sys.executable, "-c", "print('last words'); exit(3)"], env={}, log=tmp_path / "log")
    child.wait(10)

    with pytest.raises(ChildError, match=r"(?s)the child ended with status 3.*last words"):
        child.wait_for("http://127.0.0.1:9/", 5)


def test_child_that_never_answers_is_given_up(tmp_path: Path) -> None:
    child = Child("the child", [sys.executable, "-c", "import time; time.sleep(60)"], env={}, log=tmp_path / "log")
    try:
        with pytest.raises(ChildError, match="did not answer"):
            child.wait_for(f"http://127.0.0.1:{free_port()}/", 0.3)
    finally:
        child.stop()

    assert child.returncode is not None


def test_child_environment_empty_value_takes_a_variable_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.setenv("TAKEN", "yes")
    code = "import os; print(os.environ.get('KEPT'), os.environ.get('TAKEN'))"

    Child("the child", [sys.executable, "-c", code], env={"TAKEN": ""}, log=tmp_path / "log").wait(10)

    assert (tmp_path / "log").read_text().strip() == "yes None"


def test_check_port_taken_by_a_stranger_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]

        with pytest.raises(InvalidInputError, match="in use by another process"):
            check_port_is_free("127.0.0.1", port)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET6, "::1"), (socket.AF_INET, "localhost")])
def test_check_port_of_another_family_or_by_a_name(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(InvalidInputError, match="in use by another process"):
            check_port_is_free(host, port)

    check_port_is_free(host, port)
    check_port_is_free("no-such-host.invalid", port)
