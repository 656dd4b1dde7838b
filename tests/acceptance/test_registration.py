"""Tokens, names and satellites: who gets in, who does not, and nobody is stranded."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest

from tests.acceptance import artifacts, asking
from tests.acceptance.centre import run_second, wait_until
from tests.acceptance.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from tests.acceptance.centre import Centre

    Join = Callable[..., Site]

CLAIMS = 20
BAD_NAMES = ("../../etc", "a/../b", "..", "a/b", "UPPER", "a b", "", "-a", "a" * 300, "a%2fb")


@pytest.mark.acceptance("A15")
@pytest.mark.parametrize("form", ["path", "body"])
def test_of_twenty_concurrent_claims_exactly_one_wins(
    centre: Centre, name: str, anybody: httpx.Client, form: str
) -> None:
    token = centre.add_satellite(name, [])
    together = Barrier(CLAIMS)

    def claim(number: int) -> int:
        together.wait()
        if form == "path":
            return anybody.get(f"/satellites/ztr/{token}").status_code
        return anybody.post("/satellites/ztr", json={"token": token, "claim_key": f"site-{number}"}).status_code

    with ThreadPoolExecutor(CLAIMS) as pool:
        answers = sorted(pool.map(claim, range(CLAIMS)))

    assert answers[0] == 200
    assert set(answers[1:]) <= {401, 429}


@pytest.mark.acceptance("A15")
def test_token_that_was_used_is_refused(centre: Centre, name: str, anybody: httpx.Client, join: Join) -> None:
    token = centre.add_satellite(name, [])

    first, again = (anybody.get(f"/satellites/ztr/{token}") for _ in range(2))

    assert first.status_code == 200
    assert first.json()["auth"].keys() >= {"url", "username", "password"}
    assert first.json()["state"] == f"{centre.central.url}/satellite/satellite-state/{name}/state:latest"
    assert (again.status_code, again.json()["code"]) == (401, 401)


@pytest.mark.acceptance("A16")
def test_token_that_has_expired_is_refused(centre: Centre, name: str, anybody: httpx.Client, tmp_path: Path) -> None:
    with run_second(centre, tmp_path, TOKEN_TTL_SECONDS="1") as url:
        issued = centre.api.post(f"{url}/api/satellites", json={"name": name, "groups": []}).json()
    ends = datetime.fromisoformat(issued["expires_at"])
    wait_until(lambda: datetime.now(UTC), lambda now: now > ends + timedelta(seconds=0.2), "the token to expire")

    answer = anybody.get(f"/satellites/ztr/{issued['token']}")

    assert answer.status_code == 401
    assert centre.central.robots(name) == {}


@pytest.mark.acceptance("A17")
def test_site_whose_answer_was_lost_registers_with_the_same_token(centre: Centre, name: str, tmp_path: Path) -> None:
    token = centre.add_satellite(name, [])

    with Site(name, tmp_path / "site", centre) as site:
        with _losing_answers(centre.url) as (url, lost):
            unanswered = site.register(token, ground_control=url)
        registered = site.register(token)

        assert (unanswered.returncode, lost) == (1, [200])
        assert registered.returncode == 0, registered.stderr
        assert name in registered.stdout
        run = site.follow({})
        assert run.returncode == 0


@pytest.mark.acceptance("A17")
def test_site_that_lost_its_disk_gets_a_new_token_and_keeps_its_images(centre: Centre, name: str, join: Join) -> None:
    reference = f"{name}/app:v1"
    digest = artifacts.push_simple_image(centre.central.client, reference, name)
    centre.put_group(name, {reference: digest})
    site = join(name, name)
    site.follow({name: {reference: digest}})

    shutil.rmtree(site.data_dir)
    reissued = centre.api.post(f"/api/satellites/{name}/token")
    registered = site.register(reissued.json()["token"])
    run = site.sync()

    assert (reissued.status_code, registered.returncode) == (200, 0)
    assert (run.returncode, run.references("kept"), run.references("copied")) == (0, [reference], [])
    assert site.holds(reference) == {reference: digest}


@pytest.mark.acceptance("A17")
def test_reissued_token_ends_the_one_before_it(centre: Centre, name: str, anybody: httpx.Client) -> None:
    first = centre.add_satellite(name, [])

    second = centre.api.post(f"/api/satellites/{name}/token").json()["token"]

    assert anybody.get(f"/satellites/ztr/{first}").status_code == 401
    assert anybody.get(f"/satellites/ztr/{second}").status_code == 200


@pytest.mark.acceptance("A17")
def test_token_that_was_revoked_is_refused_until_a_new_one_is_issued(
    centre: Centre, name: str, anybody: httpx.Client
) -> None:
    token = centre.add_satellite(name, [])

    revoked = centre.api.post(f"/api/satellites/{name}/revoke")
    refused = anybody.get(f"/satellites/ztr/{token}")
    reissued = centre.api.post(f"/api/satellites/{name}/token").json()["token"]

    assert (revoked.status_code, refused.status_code) == (200, 401)
    assert centre.report(name, centre.claim(reissued)).status_code == 200


def test_name_that_is_taken_conflicts(centre: Centre, name: str) -> None:
    centre.add_satellite(name, [])

    answer = centre.api.post("/api/satellites", json={"name": name, "groups": []})

    assert (answer.status_code, answer.json()["code"]) == (409, 409)


@pytest.mark.parametrize("bad", BAD_NAMES, ids=lambda bad: repr(bad[:12]))
def test_names_that_could_leave_their_folder_are_refused(centre: Centre, name: str, bad: str) -> None:
    group = {"group": bad, "registry": centre.central.url, "artifacts": []}
    repository = {"repository": bad, "tag": ["v1"], "digest": "", "type": "IMAGE", "deleted": False}
    config = {"name": name, "groups": [], "config_name": bad}
    requests = [("/api/satellites", {"name": bad, "groups": []}), ("/api/groups/sync", group)]
    # The original's clients send an empty config name for none; a repository may have several parts.
    requests += [("/api/satellites", config)] if bad else []
    if bad != "a/b":
        requests.append(("/api/groups/sync", {"group": name, "registry": "", "artifacts": [repository]}))

    answers = {path + str(list(body)): centre.api.post(path, json=body).status_code for path, body in requests}

    assert set(answers.values()) == {400}, answers
    assert name not in [item["Name"] for item in centre.api.get("/api/satellites").json()]
    assert name not in [item["GroupName"] for item in centre.api.get("/api/groups").json()]


@contextmanager
def _losing_answers(url: str) -> Iterator[tuple[str, list[int]]]:
    """Pass requests on to ``url`` and hang up instead of answering; gives its address and the answers that got lost."""
    lost: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {"Content-Type": self.headers["Content-Type"]}
            lost.append(asking.post(url + self.path, content=body, headers=headers, timeout=60).status_code)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", lost
        finally:
            server.shutdown()
            thread.join()
