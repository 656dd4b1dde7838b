from __future__ import annotations

import anyio
import pytest

from ci.building import for_each, rows
from ci.errors import PipelineError
from ci.manifests import Archive, Child
from ci.report import Row


def test_for_each_no_more_at_once_than_allowed() -> None:
    now, most, done = 0, 0, []

    async def work(item: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.sleep(0.001)
        now -= 1
        done.append(item)

    anyio.run(lambda: for_each(work, range(7), 2))

    assert most == 2
    assert sorted(done) == list(range(7))


def test_for_each_failure_is_raised_by_itself_and_ends_the_others() -> None:
    done = []

    async def work(item: int) -> None:
        if item == 1:
            raise PipelineError("linux/s390x was not built")
        await anyio.sleep_forever()
        done.append(item)

    with pytest.raises(PipelineError, match=r"^linux/s390x was not built$"):
        anyio.run(lambda: for_each(work, range(3), 3))

    assert not done


def test_rows_platform_not_run_has_no_seconds() -> None:
    archive = Archive(
        "sha256:0",
        (Child("linux/amd64", "sha256:1"), Child("linux/386", "sha256:2")),
        {"linux/amd64": 10, "linux/386": 20},
    )

    assert rows("satellite", {"linux/amd64": 1.5}, archive) == (
        Row("satellite", "linux/amd64", 10, "sha256:1", 1.5),
        Row("satellite", "linux/386", 20, "sha256:2", None),
    )
