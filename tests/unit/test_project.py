from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harbor_satellite.project import enter, project_dir

if TYPE_CHECKING:
    import pytest


def test_project_dir_holds_the_project() -> None:
    directory = project_dir()

    assert (directory / "prefect.yaml").is_file()
    assert (directory / "flows" / "replicate_state.py").is_file()


def test_enter_makes_it_the_working_directory_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry) != project_dir()])

    answers = [enter(), enter()]

    assert answers == [{"directory": str(project_dir())}] * 2
    assert Path.cwd() == project_dir()
    assert sys.path.count(str(project_dir())) == 1
