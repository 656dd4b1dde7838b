from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from ci.provenance import LOCAL_BUILDER, Origin, origin_of, predicate, without_credentials

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MOMENT = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def made(origin: Origin, commit: str = COMMIT, tools: dict[str, str] | None = None) -> dict[str, object]:
    return predicate(
        origin,
        image="satellite",
        version="1.2.3",
        commit=commit,
        epoch=1,
        platforms=["linux/amd64"],
        files={"constraints-edge.txt": b"a==1\n"},
        tools=tools or {},
        started=MOMENT,
        finished=MOMENT,
    )


def materials(statement: dict[str, object]) -> dict[str, dict[str, object]]:
    definition = statement["buildDefinition"]
    assert isinstance(definition, dict)
    return {material["name"]: material for material in definition["resolvedDependencies"]}


def test_predicate_names_source_locks_and_tools() -> None:
    origin = Origin("https://ci.example.com", "https://ci.example.com/1", "https://git.example.com/acme/satellite")
    tools = {"syft": "docker.io/anchore/syft:v1", "cosign": "gcr.io/cosign:v3@sha256:" + "a" * 64}

    statement = made(origin, tools=tools)

    assert materials(statement) == {
        "source": {
            "name": "source",
            "uri": f"git+https://git.example.com/acme/satellite@{COMMIT}",
            "digest": {"gitCommit": COMMIT},
        },
        "constraints-edge.txt": {
            "name": "constraints-edge.txt",
            "uri": "file:constraints-edge.txt",
            "digest": {"sha256": hashlib.sha256(b"a==1\n").hexdigest()},
        },
        "syft": {"name": "syft", "uri": "docker://docker.io/anchore/syft:v1"},
        "cosign": {"name": "cosign", "uri": f"docker://{tools['cosign']}", "digest": {"sha256": "a" * 64}},
    }
    assert statement["runDetails"] == {
        "builder": {"id": "https://ci.example.com"},
        "metadata": {
            "invocationId": "https://ci.example.com/1",
            "startedOn": "2026-11-23T12:00:00Z",
            "finishedOn": "2026-11-23T12:00:00Z",
        },
    }


def test_predicate_outside_a_checkout_names_no_source() -> None:
    assert set(materials(made(Origin(), commit=""))) == {"constraints-edge.txt"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Origin(LOCAL_BUILDER)),
        (
            {
                "GITHUB_SERVER_URL": "https://github.com",
                "GITHUB_REPOSITORY": "acme/satellite",
                "GITHUB_WORKFLOW_REF": "acme/satellite/.github/workflows/release.yml@refs/tags/v1",
                "GITHUB_RUN_ID": "7",
            },
            Origin(
                "https://github.com/acme/satellite/.github/workflows/release.yml@refs/tags/v1",
                "https://github.com/acme/satellite/actions/runs/7/attempts/1",
                "https://github.com/acme/satellite",
            ),
        ),
        (
            {
                "CI_PROJECT_URL": "https://gitlab.example.com/acme/satellite",
                "CI_RUNNER_ID": "3",
                "CI_JOB_URL": "https://gitlab.example.com/acme/satellite/-/jobs/9",
            },
            Origin(
                "https://gitlab.example.com/acme/satellite/-/runners/3",
                "https://gitlab.example.com/acme/satellite/-/jobs/9",
                "https://gitlab.example.com/acme/satellite",
            ),
        ),
    ],
    ids=["laptop", "github", "gitlab"],
)
def test_origin_of_environment_names_the_builder(environment: dict[str, str], expected: Origin) -> None:
    assert origin_of(environment) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:secret@git.example.com:8443/a/b", "https://git.example.com:8443/a/b"),
        ("https://git.example.com/a", "https://git.example.com/a"),
        ("git@git.example.com:a/b.git", "ssh://git.example.com/a/b.git"),
        ("/home/me/a", ""),
        ("../a", ""),
        ("", ""),
    ],
)
def test_without_credentials_url_loses_them(url: str, expected: str) -> None:
    assert without_credentials(url) == expected
