from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from ci.credentials import Secret
from ci.errors import PipelineError
from ci.github_release import make_release

TOKEN = Secret("made-up-token")
API = "https://api.example.com"
UPLOADS = "https://uploads.example.com"


@dataclass
class FakeGitHub:
    """As much of GitHub's releases as is used; its pages hold one release each."""

    releases: list[dict[str, Any]] = field(default_factory=list)
    contents: dict[int, dict[str, bytes]] = field(default_factory=dict)
    refuses_uploads: bool = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.headers["Authorization"] != f"Bearer {TOKEN.value}":
            return httpx.Response(401, json={"message": "Bad credentials"})
        if request.url.host == "uploads.example.com":
            return self._upload(request, int(request.url.path.split("/")[-2]))
        return self._call(request)

    def _call(self, request: httpx.Request) -> httpx.Response:
        prefix, parts = "/repos/acme/satellite/releases", request.url.path.split("/")
        match request.method, request.url.path:
            case "GET", path if path == prefix:
                return self._page(int(request.url.params.get("page", "1")))
            case "POST", path if path == prefix:
                return httpx.Response(201, json=self.add(json.loads(request.content)))
            case "PATCH", _:
                release = next(each for each in self.releases if each["id"] == int(parts[-1]))
                release |= json.loads(request.content)
                return httpx.Response(200, json=release)
            case "DELETE", _:
                for release in self.releases:
                    release["assets"] = [each for each in release["assets"] if each["id"] != int(parts[-1])]
                return httpx.Response(204)
        return httpx.Response(404)

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.releases) + 1
        upload = f"{UPLOADS}/repos/acme/satellite/releases/{number}/assets{{?name,label}}"
        page = f"https://example.com/{number}"
        release = {"id": number, "upload_url": upload, "html_url": page, "assets": [], **body}
        self.releases.append(release)
        return release

    def _page(self, number: int) -> httpx.Response:
        url = f"{API}/repos/acme/satellite/releases?page={number + 1}"
        headers = {"Link": f'<{url}>; rel="next"'} if number < len(self.releases) else {}
        return httpx.Response(200, json=self.releases[number - 1 : number], headers=headers)

    def _upload(self, request: httpx.Request, number: int) -> httpx.Response:
        release, name = self.releases[number - 1], request.url.params["name"]
        if self.refuses_uploads or name in {asset["name"] for asset in release["assets"]}:
            return httpx.Response(422, json={"message": "already_exists"})
        release["assets"].append({"id": 100 + len(release["assets"]), "name": name})
        self.contents.setdefault(number, {})[name] = request.content
        return httpx.Response(201, json={})


def release(
    github: FakeGitHub, *, tag: str = "v1.2.3", token: Secret = TOKEN, is_final: bool = True, is_latest: bool = True
) -> str:
    return make_release(
        repository="acme/satellite",
        tag=tag,
        notes="### Added\n- All.",
        is_final=is_final,
        is_latest=is_latest,
        files={"SHA256SUMS": b"sums", "a.whl": b"wheel"},
        token=token,
        api=API,
        transport=httpx.MockTransport(github),
    )


def test_make_release_files_are_there_before_it_is_published() -> None:
    github = FakeGitHub()

    assert release(github) == "https://example.com/1"

    (made,) = github.releases
    assert (made["draft"], made["prerelease"], made["body"]) == (False, False, "### Added\n- All.")
    assert github.contents == {1: {"SHA256SUMS": b"sums", "a.whl": b"wheel"}}


def test_make_release_upload_refused_stays_a_draft() -> None:
    github = FakeGitHub(refuses_uploads=True)

    with pytest.raises(PipelineError, match=r"POST .*assets: 422 .*already_exists"):
        release(github)

    assert [made["draft"] for made in github.releases] == [True]


def test_make_release_draft_left_on_second_page_is_taken_up() -> None:
    github = FakeGitHub()
    github.add({"tag_name": "v1.2.2", "draft": False})
    github.add({"tag_name": "v1.2.3", "draft": True})["assets"].append({"id": 9, "name": "a.whl"})

    release(github)

    assert len(github.releases) == 2
    assert sorted(asset["name"] for asset in github.releases[1]["assets"]) == ["SHA256SUMS", "a.whl"]
    assert github.contents[2]["a.whl"] == b"wheel"


def test_make_release_published_already_is_refused() -> None:
    github = FakeGitHub()
    github.add({"tag_name": "v1.2.3", "draft": False})

    with pytest.raises(PipelineError, match=r"v1\.2\.3 is released already: https://example\.com/1"):
        release(github)

    assert github.contents == {}


def test_make_release_pre_release_is_marked() -> None:
    github = FakeGitHub()

    release(github, tag="v1.2.3-rc.1", is_final=False)

    assert github.releases[0]["prerelease"] is True


@pytest.mark.parametrize(
    ("is_latest", "said"), [(True, "true"), (False, "false")], ids=["newest", "fix-of-an-old-line"]
)
def test_make_release_only_the_newest_is_shown_as_latest(*, is_latest: bool, said: str) -> None:
    github = FakeGitHub()

    release(github, is_latest=is_latest)

    assert github.releases[0]["make_latest"] == said


def test_make_release_refused_token_is_not_shown() -> None:
    with pytest.raises(PipelineError, match="401") as raised:
        release(FakeGitHub(), token=Secret("another-made-up"))

    assert "another-made-up" not in str(raised.value)


def test_make_release_unreachable_is_named() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(PipelineError, match=r"GET https://api\.github\.com/repos/a/b/releases.*ConnectError"):
        make_release(
            repository="a/b",
            tag="v1",
            notes="",
            is_final=True,
            is_latest=True,
            files={},
            token=TOKEN,
            transport=httpx.MockTransport(refuse),
        )
