"""A release at GitHub with its files, by the REST API: a draft until all files are there, then published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import httpx

from ci.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ci.credentials import Secret

API: Final = "https://api.github.com"
_TIMEOUT: Final = httpx.Timeout(30, write=600)  # seconds; a file may be large
_PER_PAGE: Final = 100
_DETAIL: Final = 300


def make_release(
    *,
    repository: str,
    tag: str,
    notes: str,
    is_final: bool,
    is_latest: bool,
    files: Mapping[str, bytes],
    token: Secret,
    api: str = API,
    transport: httpx.BaseTransport | None = None,
) -> str:
    """Make a release of a tag that is there, and return its page's URL.

    A draft that an earlier run left is taken up again; what it has of the same name is replaced.

    Args:
        repository: `OWNER/REPOSITORY`.
        tag: git's.
        notes: Markdown.
        is_final: whether it is no pre-release.
        is_latest: whether it is the one that GitHub shows first; left to itself, GitHub takes the one made last, though
            it be a fix of an old line.
        files: name → content.
        token: may write the repository's contents.
        api: root of the API, GitHub's or an enterprise's own.
        transport: instead of the network's.

    Raises:
        PipelineError: GitHub refused or was not reached, or the release is published already.
    """
    headers = {
        "Authorization": f"Bearer {token.value}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    with httpx.Client(headers=headers, timeout=_TIMEOUT, transport=transport) as http:
        github = _GitHub(http, f"{api.rstrip('/')}/repos/{repository}/releases")
        body = {"tag_name": tag, "name": tag, "body": notes, "prerelease": not is_final}
        release = github.draft(tag) or github.call("POST", github.releases, json=body | {"draft": True})
        github.upload(release, files)
        published = body | {"draft": False, "make_latest": "true" if is_latest else "false"}
        done = github.call("PATCH", f"{github.releases}/{release['id']}", json=published)
    return str(done["html_url"])


class _GitHub:
    """The calls that are needed, with errors of ours."""

    def __init__(self, http: httpx.Client, releases: str) -> None:
        self._http = http
        self.releases = releases

    def draft(self, tag: str) -> Mapping[str, object] | None:
        """Return the draft of a tag, None where there is none.

        Raises:
            PipelineError: there is a release of the tag that is published.
        """
        url: str | None = f"{self.releases}?per_page={_PER_PAGE}"
        while url:
            answer = self._send("GET", url)
            for release in cast("list[Mapping[str, object]]", answer.json()):
                if release["tag_name"] == tag:
                    if release["draft"]:
                        return release
                    raise PipelineError(f"{tag} is released already: {release['html_url']}")
            url = answer.links.get("next", {}).get("url")
        return None

    def upload(self, release: Mapping[str, object], files: Mapping[str, bytes]) -> None:
        """Attach the files to a release."""
        for asset in cast("list[Mapping[str, object]]", release.get("assets", [])):
            if asset["name"] in files:
                self._send("DELETE", f"{self.releases}/assets/{asset['id']}")
        # RFC 6570: `…/assets{?name,label}`.
        url = str(release["upload_url"]).partition("{")[0]
        for name, content in sorted(files.items()):
            headers = {"Content-Type": "application/octet-stream"}
            self._send("POST", url, params={"name": name}, content=content, headers=headers)

    def call(self, method: str, url: str, *, json: Mapping[str, object]) -> Mapping[str, object]:
        """Return what GitHub answers."""
        return cast("Mapping[str, object]", self._send(method, url, json=json).json())

    def _send(
        self,
        method: str,
        url: str,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        where = f"GitHub: {method} {url}"
        try:
            answer = self._http.request(method, url, json=json, params=params, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise PipelineError(f"{where}: {type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise PipelineError(f"{where}: {answer.status_code} {answer.text[:_DETAIL]}")
        return answer
