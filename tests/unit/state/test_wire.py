from __future__ import annotations

import json

import pytest
from pydantic import SecretStr, ValidationError

from harbor_satellite.state.wire import (
    CachedImage,
    Registration,
    RegistrationClaim,
    RegistryAuth,
    StatusReport,
)

SECRET = "made-up-secret"


def registration() -> Registration:
    auth = RegistryAuth(url="https://harbor.example", username="robot$shop", password=SecretStr(SECRET))
    return Registration(auth=auth, state="https://harbor.example/satellite/satellite-state/shop/state:latest")


@pytest.mark.parametrize(
    "body",
    [registration(), RegistrationClaim(token=SecretStr(SECRET), claim_key=SecretStr(SECRET))],
    ids=["registration", "claim"],
)
def test_wire_body_shows_no_secret(body: Registration | RegistrationClaim) -> None:
    assert SECRET not in repr(body)
    assert SECRET not in str(body)
    assert SECRET not in str(body.model_dump())


def test_registration_as_json_has_the_secret_and_keys_of_the_original() -> None:
    document = json.loads(registration().model_dump_json())

    auth = {"url": "https://harbor.example", "username": "robot$shop", "password": SECRET}
    assert document["auth"] == {**auth, "expires_at": None}
    assert document["state"].endswith("/satellite/satellite-state/shop/state:latest")


def test_registration_of_the_original_is_read() -> None:
    theirs = {"auth": {"url": "h", "username": "u", "password": SECRET}, "state": "h/s", "new": 1}

    read = Registration.model_validate_json(json.dumps(theirs))

    assert read.auth.password.get_secret_value() == SECRET
    assert (read.satellite, read.prefect_api_url) == ("", "")


def test_status_report_of_the_original_is_read() -> None:
    theirs = {
        "name": "shop",
        "activity": "",
        "state_report_interval": "@every 30s",
        "latest_state_digest": "",
        "latest_config_digest": "",
        "memory_used_bytes": 1,
        "storage_used_bytes": 2,
        "cpu_percent": 0.5,
        "request_created_time": "2026-11-22T12:00:00Z",
        "last_sync_duration_ms": 3,
        "image_count": 1,
        "cached_images": [{"reference": "library/alpine:latest", "size_bytes": 4}],
    }

    read = StatusReport.model_validate_json(json.dumps(theirs))

    assert read.cached_images == [CachedImage(reference="library/alpine:latest", size_bytes=4)]
    assert theirs.keys() <= json.loads(read.model_dump_json()).keys()


@pytest.mark.parametrize(
    "more",
    [
        {"name": "a" * 1025},
        {"image_count": -1},
        {"cpu_percent": -0.1},
        {"cached_images": [{"reference": "a"}] * 10_001},
        {"failures": [{"reference": "a", "reason": "b" * 4097}]},
    ],
    ids=["long name", "negative count", "negative CPU", "too many images", "long reason"],
)
def test_status_report_past_its_caps_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StatusReport.model_validate({"name": "shop", **more})
