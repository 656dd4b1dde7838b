"""The Harbor of the centre under test: a fake one, in front of a real registry."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

from pydantic import SecretStr

from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from tests.acceptance import asking
from tests.fakes.harbor import FakeHarbor
from tests.fakes.harbor_accounts import ADMIN
from tests.fakes.harbor_registry import Backend
from tests.fixtures_ground_control import serve
from tests.fixtures_registry import run_cncf, run_embedded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import httpx

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.oci.digest import Digest

_PULL = {"resource": "repository", "action": "pull"}


class Pushing(HttpRegistry):
    """A registry as its administrator uses it: a project is made for what is pushed."""

    def __init__(self, url: str, api: httpx.Client) -> None:
        super().__init__(url, credentials=Credentials(ADMIN[0], SecretStr(ADMIN[1])))
        self._api = api
        self._projects: set[str] = set()

    def blob_head(self, repository: str, digest: Digest) -> int | None:
        self._make_project(repository)
        return super().blob_head(repository, digest)

    def blob_put(self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        self._make_project(repository)
        super().blob_put(repository, descriptor, chunks)

    def _make_project(self, repository: str) -> None:
        project = repository.partition("/")[0]
        if project not in self._projects:
            self._projects.add(project)
            made = self._api.post("/projects", json={"project_name": project, "public": False})
            assert made.status_code in {201, 409}, made.text


@dataclass(frozen=True)
class CentralRegistry:
    """The Harbor where the centre keeps images and states: a fake one, in front of a real registry."""

    url: str
    root: Path
    """Where the real registry has its files."""
    fake: FakeHarbor
    client: HttpRegistry
    """As Harbor's administrator."""
    api: httpx.Client
    """Harbor's API, as its administrator."""

    def robots(self, satellite: str) -> dict[str, set[str]]:
        """Return a satellite's robots with the projects that each may pull from."""
        mine = re.compile(rf"robot\${re.escape(satellite)}(-r\d+)?")
        answer = self.api.get("/robots", params={"page_size": -1})
        assert answer.status_code == 200, answer.text
        return {
            robot["name"]: {one["namespace"] for one in robot["permissions"] if _PULL in one["access"]}
            for robot in answer.json()
            if mine.fullmatch(robot["name"])
        }


@contextmanager
def run_harbor(folder: Path) -> Iterator[CentralRegistry]:
    """Run a fake Harbor in front of CNCF distribution where that is on PATH, else of the embedded registry."""
    run = run_cncf if shutil.which("registry") else run_embedded
    # Who brings its cookie back is asked for a CSRF token.
    cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    with run(folder) as registry:
        fake = FakeHarbor(backend=Backend(registry.url))
        with (
            serve(fake.app) as url,
            asking.client(base_url=f"{url}/api/v2.0", auth=ADMIN, cookies=cookies) as api,
            Pushing(url, api) as client,
        ):
            yield CentralRegistry(url, registry.root, fake, client, api)
