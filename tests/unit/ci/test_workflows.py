import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.options import parse

ROOT = Path(__file__).parents[3]
GITHUB = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GITLAB = ROOT / ".gitlab-ci.yml"
PIPELINE = "python -m ci "
INSTALL = "python -m pip install --no-deps --require-hashes --requirement constraints-ci.txt"
# What the two systems would put there.
SAMPLES = {
    "TAG": "v1.2.3",
    "REPOSITORY": "example/harbor-satellite",
    "IDENTITY": "https://github.com/example/harbor-satellite/.github/workflows/release.yml@refs/tags/v1.2.3",
    "CI_COMMIT_TAG": "v1.2.3",
    "CI_REGISTRY_IMAGE": "registry.example.com/example/harbor-satellite",
    "CI_PROJECT_URL": "https://gitlab.example.com/example/harbor-satellite",
    "CI_SERVER_URL": "https://gitlab.example.com",
}
WRITES = {"packages: write", "id-token: write", "contents: write"}


def load(path: Path) -> dict[Any, Any]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in GITHUB:
        for name, job in load(path)["jobs"].items():
            yield f"{path.name} {name}", job


def github_commands() -> Iterator[str]:
    for _, job in jobs():
        for step in job["steps"]:
            if step.get("run") == "${{ matrix.run }}":
                yield from (each["run"] for each in job["strategy"]["matrix"]["include"])
            elif "run" in step:
                yield step["run"]


def gitlab_commands() -> Iterator[str]:
    for name, job in load(GITLAB).items():
        if isinstance(job, dict) and name != "default":
            yield from job.get("script", ())


def verbs(commands: Iterator[str]) -> list[list[str]]:
    """The pipeline's arguments of each command that calls it, with samples for variables."""
    called = [each for each in commands if each.startswith(PIPELINE)]
    return [shlex.split(re.sub(r"\$\{?(\w+)(,,\})?", lambda found: SAMPLES[found[1]], each))[3:] for each in called]


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        pytest.param(github_commands, ["check", "test", "build", "check", "test", "release", "release"], id="GitHub"),
        pytest.param(gitlab_commands, ["check", "test", "build", "release"], id="GitLab"),
    ],
)
def test_workflow_calls_verbs_as_the_pipeline_takes_them(commands: Any, expected: list[str]) -> None:
    parsed = [parse(argv) for argv in verbs(commands())]

    assert [each.verb for each in parsed] == expected
    assert {each.release_tag for each in parsed} == {"", "v1.2.3"}


def test_workflow_does_nothing_but_install_the_pipeline_and_call_it() -> None:
    others = [each for each in (*github_commands(), *gitlab_commands()) if not each.startswith(PIPELINE)]

    assert {each for each in others if not each.startswith("export REGISTRY_USERNAME=")} == {INSTALL}
    assert load(GITLAB)["default"]["before_script"][-1] == INSTALL


def test_workflow_started_by_hand_or_by_a_change_publishes_nothing() -> None:
    for name, job in jobs():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        if WRITES & {f"{key}: {value}" for key, value in job["permissions"].items()}:
            assert job["if"] == "github.event_name == 'push'", name
        else:
            assert job["permissions"] == {"contents": "read"}, name
            assert not any("secrets." in str(step) for step in job["steps"]), name
            assert all("release" not in each or "--dry-run" in each for each in commands), name


def test_workflow_has_no_rights_but_those_that_a_job_names() -> None:
    for path in GITHUB:
        assert load(path)["permissions"] == {}
    assert {"push", "pull_request"} == set(load(ROOT / ".github/workflows/ci.yml")[True])  # YAML 1.1 reads `on` so
    assert load(ROOT / ".github/workflows/release.yml")[True]["push"] == {"tags": ["v*"]}


def test_workflow_uses_actions_by_commit_and_keeps_no_credentials() -> None:
    for name, job in jobs():
        used = [step for step in job["steps"] if "uses" in step]
        assert used, name
        for step in used:
            assert re.fullmatch(r"actions/(checkout|setup-python)@[0-9a-f]{40}", step["uses"]), name
            if "checkout" in step["uses"]:
                assert step["with"]["persist-credentials"] is False


def test_workflow_puts_no_expression_into_a_shell_command() -> None:
    # What others can choose, such as a tag's name, arrives as a variable and is no part of the script.
    assert not [each for each in github_commands() if "${{" in each]


def test_gitlab_waits_for_the_release_until_all_is_verified() -> None:
    loaded = load(GITLAB)

    assert loaded["stages"] == ["verify", "release"]
    assert [name for name, job in loaded.items() if isinstance(job, dict) and job.get("stage") == "release"] == [
        "release"
    ]
    assert loaded["release"]["rules"] == [{"if": "$CI_COMMIT_TAG =~ /^v/"}]


def test_gitlab_engine_has_the_name_that_its_clients_look_for() -> None:
    loaded = load(GITLAB)
    (service,) = loaded["default"]["services"]

    assert loaded["variables"]["DOCKER_HOST"] == f"tcp://{service['alias']}:2376"
    # GitLab makes a name of the image's, registry and all: `docker.io-library-docker`.
    assert "dind" in service["name"]


def test_github_waits_for_the_release_until_all_is_verified() -> None:
    loaded = load(ROOT / ".github/workflows/release.yml")["jobs"]
    needed = loaded[loaded["release"]["needs"]]
    called = [step["run"].removeprefix(PIPELINE) for step in needed["steps"] if PIPELINE in step.get("run", "")]

    assert called == ["check", "test"]
    assert needed["permissions"] == {"contents": "read"}
    assert needed["if"] == loaded["release"]["if"]
