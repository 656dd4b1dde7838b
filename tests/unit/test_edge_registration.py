"""Registration without touch: where the token comes from, what is asked and how often, what stays on disk."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from harbor_satellite.edge.credential import ground_control_url, open_ground_control
from harbor_satellite.edge.registration import StoppedError, ensure_registered, register_now
from harbor_satellite.edge.registration_attempt import new_token_given, token_sources
from harbor_satellite.edge.site import verify_option
from harbor_satellite.edge.status import StatusReader
from harbor_satellite.errors import (
    ConflictError,
    InvalidInputError,
    OtherMachineError,
    RemoteError,
    TokenRefusedError,
)
from harbor_satellite.satellite.centre_contact import load_contact
from harbor_satellite.satellite.health import problems_of
from harbor_satellite.satellite.machine_key import MachineIdentity
from harbor_satellite.satellite.registration import clear_refusal, note_refusal, refusal
from harbor_satellite.satellite.registration_file import token_source
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from tests.fakes.claims import SECRET, FakeClaims

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN, NEXT = "made-up-token", "made-up-next"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Waits(threading.Event):
    """Does not wait; says how long it was to, and lets the world change meanwhile."""

    def __init__(self, *happens: Callable[[], object]) -> None:
        super().__init__()
        self.waited: list[float] = []
        self._happens = list(happens)

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        if self._happens:
            self._happens.pop(0)()
        elif len(self.waited) > 2000:
            self.set()
        return self.is_set()


@pytest.fixture
def centre() -> Iterator[FakeClaims]:
    with FakeClaims(TOKEN).serving() as fake:
        yield fake


@pytest.fixture
def settings(tmp_path: Path, centre: FakeClaims) -> SatelliteSettings:
    return SatelliteSettings(
        data_dir=tmp_path / "data", registration_file=tmp_path / "registration.json", ground_control_url=centre.url
    )


@pytest.fixture
def store(settings: SatelliteSettings) -> SatelliteStore:
    return SatelliteStore(settings.data_dir)


def drop(settings: SatelliteSettings, centre: FakeClaims, token: str = TOKEN, **more: str) -> None:
    document = {"ground_control_url": centre.url, "token": token, **more}
    settings.registration_file.write_text(json.dumps(document))
    settings.registration_file.chmod(0o600)


def changed(settings: SatelliteSettings, **values: Any) -> SatelliteSettings:
    return settings.model_copy(update=values)


def unset(settings: SatelliteSettings) -> SatelliteSettings:
    return changed(settings, ground_control_url="")


def with_token(settings: SatelliteSettings, token: str = TOKEN) -> SatelliteSettings:
    return changed(settings, token=SecretStr(token))


def test_ensure_registered_by_a_dropped_file_needs_nothing_else(
    settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore
) -> None:
    drop(settings, centre)

    registration = ensure_registered(unset(settings), Waits())

    assert registration == store.registration()
    assert registration.auth.password.get_secret_value() == SECRET
    assert not settings.registration_file.exists()
    assert ground_control_url(unset(settings), store) == centre.url
    with open_ground_control(unset(settings)) as client:
        assert client is not None
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.folder.iterdir() if path.suffix} == {0o600}


def test_settings_stand_above_what_is_remembered(settings: SatelliteSettings, centre: FakeClaims) -> None:
    ensure_registered(with_token(settings), Waits())

    own = changed(settings, ground_control_url="https://other.example")

    assert ground_control_url(own, SatelliteStore(own.data_dir)) == "https://other.example"


def test_token_sources_come_in_order(settings: SatelliteSettings, centre: FakeClaims, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    drop(settings, centre, "dropped")

    found = list(token_sources(changed(with_token(settings, "from-env"), token_file=tmp_path / "token")))

    assert [source.token.get_secret_value() for source in found] == ["from-env", "from-a-file", "dropped"]
    assert [source.place for source in found] == [
        "HARBOR_SATELLITE_TOKEN",
        str(tmp_path / "token"),
        str(settings.registration_file),
    ]


def test_a_stale_token_in_the_environment_does_not_hide_the_dropped_file(
    settings: SatelliteSettings, centre: FakeClaims
) -> None:
    drop(settings, centre)

    ensure_registered(with_token(settings, "made-up-stale"), Waits())

    assert centre.asked == ["made-up-stale", TOKEN]


def test_ensure_registered_again_asks_nobody(settings: SatelliteSettings, centre: FakeClaims) -> None:
    first = ensure_registered(with_token(settings), Waits())

    again = ensure_registered(with_token(settings), Waits())

    assert (first, len(centre.claims)) == (again, 1)


def test_registered_site_leaves_a_file_with_another_token_alone(
    settings: SatelliteSettings, centre: FakeClaims, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_registered(with_token(settings), Waits())
    drop(settings, centre, NEXT)

    ensure_registered(settings, Waits())

    assert centre.asked == [TOKEN]
    assert settings.registration_file.exists()
    assert "--again" in caplog.text


def test_file_whose_removal_was_cut_off_is_removed_by_the_next_start(
    settings: SatelliteSettings, centre: FakeClaims
) -> None:
    drop(settings, centre)
    ensure_registered(settings, Waits())
    drop(settings, centre)

    ensure_registered(settings, Waits())

    assert centre.asked == [TOKEN]
    assert not settings.registration_file.exists()


def test_file_that_cannot_be_removed_is_a_warning(
    settings: SatelliteSettings, centre: FakeClaims, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drop(settings, centre)
    link = tmp_path / "link.json"
    link.symlink_to(settings.registration_file)  # a link is not followed: root has no read-only files

    ensure_registered(changed(settings, registration_file=link), Waits())
    ensure_registered(changed(settings, registration_file=link), Waits())

    assert len(centre.claims) == 1
    assert f"its token is spent path={link}" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: needs root")
def test_file_of_another_user_says_how_the_site_gets_to_it(settings: SatelliteSettings, centre: FakeClaims) -> None:
    drop(settings, centre)
    os.seteuid(4711)
    try:
        with pytest.raises(InvalidInputError) as refused:
            list(token_sources(settings))
    finally:
        os.seteuid(0)

    said = f"cannot read {settings.registration_file} as user 4711: Permission denied: "
    assert str(refused.value).startswith(said)
    assert "run `harbor-satellite edge register` as root" in str(refused.value)


def test_refused_site_says_once_that_a_dropped_file_is_not_for_it(
    settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_registered(with_token(settings), Waits())
    note_refusal(store, "unknown", NOW)
    settings.registration_file.mkdir()  # as unreadable for root as a file of root's is for others

    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        assert not new_token_given(settings)

    assert caplog.text.count(f"no new token: cannot read {settings.registration_file}") == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_file_that_all_can_read_is_a_warning(
    settings: SatelliteSettings, centre: FakeClaims, caplog: pytest.LogCaptureFixture
) -> None:
    drop(settings, centre)
    settings.registration_file.chmod(0o644)

    ensure_registered(settings, Waits())

    assert "can be read by all" in caplog.text


def test_centre_away_is_asked_later_and_later(
    settings: SatelliteSettings, centre: FakeClaims, caplog: pytest.LogCaptureFixture
) -> None:
    centre.statuses = [503, 500, 404, 503]
    waits = Waits()

    ensure_registered(with_token(settings), waits)

    assert len(centre.claims) == 5
    assert len({claim["claim_key"] for claim in centre.claims}) == 1
    # 2, 4, 8 and 16 s, with jitter; in steps of 5 s at most.
    assert 15.0 <= sum(waits.waited) <= 30.0 + 20.0
    assert waits.waited[0] <= 2.0
    assert "not registered yet" in caplog.text
    assert TOKEN not in caplog.text
    assert load_contact(SatelliteStore(settings.data_dir)).away_since is None


def test_centre_away_is_seen_in_the_status(settings: SatelliteSettings, centre: FakeClaims) -> None:
    centre.statuses = [503] * 20
    store = SatelliteStore(settings.data_dir)

    stopping = Waits(lambda: stopping.set())  # noqa: PLW0108  (it is not there yet)
    with pytest.raises(StoppedError):
        ensure_registered(with_token(settings), stopping)

    assert "HTTP 503" in load_contact(store).reason


def test_refusal_is_seen_in_the_status(settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore) -> None:
    ensure_registered(with_token(settings), Waits())
    note_refusal(store, "deleted at the centre", NOW)

    status = StatusReader(lambda: settings, lambda _: True).read(NOW)

    assert status.link.refused_since == NOW
    assert "refused" in [problem.kind for problem in problems_of(status)]


def test_refused_token_waits_for_another_one_and_says_so_once(
    settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    centre.tokens = [NEXT]
    drop(settings, centre)
    nothing = [lambda: None] * 100
    waits = Waits(*nothing, lambda: drop(settings, centre, NEXT))

    ensure_registered(settings, waits)

    assert centre.asked == [TOKEN, NEXT]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert f"refused the one-time token of {settings.registration_file}" in errors[0]
    assert "fleet satellite token" in errors[0]
    assert TOKEN not in caplog.text
    assert refusal(store) is None


def test_refused_token_is_tried_again_within_the_hour(settings: SatelliteSettings, centre: FakeClaims) -> None:
    centre.tokens = []
    waits = Waits(*[lambda: None] * 300, lambda: centre.tokens.append(TOKEN))

    ensure_registered(with_token(settings), waits)

    assert sum(waits.waited) <= 3600.0 * 2


def test_site_without_a_token_waits_for_a_registration_by_hand(settings: SatelliteSettings, centre: FakeClaims) -> None:
    by_hand = token_source(SecretStr(TOKEN), "--token")
    waits = Waits(lambda: None, lambda: register_now(settings, by_hand))

    registration = ensure_registered(settings, waits)

    assert (registration.satellite, len(centre.claims), len(waits.waited)) == ("shop", 1, 2)


def test_ensure_registered_stops_when_told(settings: SatelliteSettings, centre: FakeClaims) -> None:
    waits = Waits(lambda: None, lambda: waits.set())  # noqa: PLW0108  (it is not there yet)

    with pytest.raises(StoppedError):
        ensure_registered(settings, waits)


def test_ensure_registered_beside_another_process_waits_for_it(
    settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore
) -> None:
    lock = store.credentials_lock()
    lock.__enter__()
    waits = Waits(lambda: lock.__exit__(None, None, None))

    ensure_registered(with_token(settings), waits)

    assert len(centre.claims) == 1


@pytest.mark.parametrize("which", ["first", "again"])
def test_two_at_once_claim_once(settings: SatelliteSettings, centre: FakeClaims, which: str) -> None:
    is_again = which == "again"
    if is_again:
        register_now(with_token(settings), None)
        centre.tokens.append(NEXT)
        centre.claims.clear()
    given = token_source(SecretStr(NEXT if is_again else TOKEN), "--token")
    ended: list[tuple[str, bool]] = []
    first_asks, second_was_there = threading.Event(), threading.Event()

    def wait_for_second() -> None:
        first_asks.set()
        second_was_there.wait(10)

    def let_first_go_on(_seconds: float) -> None:
        second_was_there.set()
        first.join(10)

    centre.before_answer = wait_for_second

    def claim(rest: Callable[[float], object]) -> None:
        registration, is_new = register_now(settings, given, is_again=is_again, patience_seconds=10, rest=rest)
        ended.append((registration.auth.username, is_new))

    first = threading.Thread(target=claim, args=(lambda _: None,))
    first.start()
    assert first_asks.wait(10)
    claim(let_first_go_on)  # the lock is busy: it rests, and looks again
    first.join(10)

    username = f"robot${given.token.get_secret_value()}"
    assert sorted(ended) == [(username, False), (username, True)]
    assert len(centre.claims) == 1


def test_register_now_busy_for_too_long_is_a_conflict(settings: SatelliteSettings, store: SatelliteStore) -> None:
    rested: list[float] = []

    with store.credentials_lock(), pytest.raises(ConflictError, match="another registration"):
        register_now(with_token(settings), None, patience_seconds=30, rest=rested.append)

    assert sum(rested) == pytest.approx(30)


def test_register_now_centre_away_gives_up_in_time(settings: SatelliteSettings, centre: FakeClaims) -> None:
    centre.statuses = [503] * 100
    rested: list[float] = []

    with pytest.raises(RemoteError, match="HTTP 503"):
        register_now(with_token(settings), None, patience_seconds=30, rest=rested.append)

    assert sum(rested) == pytest.approx(30)
    assert 5 <= len(centre.claims) <= 12


def test_register_now_again_with_the_same_token_asks_nobody(settings: SatelliteSettings, centre: FakeClaims) -> None:
    register_now(with_token(settings), None)

    _, is_new = register_now(with_token(settings), None, is_again=True)

    assert (is_new, len(centre.claims)) == (False, 1)


def test_register_now_again_with_a_wrong_token_keeps_the_registration(
    settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore
) -> None:
    first, _ = register_now(with_token(settings), None)

    with pytest.raises(TokenRefusedError, match="HARBOR_SATELLITE_TOKEN: it is unknown"):
        register_now(with_token(settings, "made-up-wrong"), None, is_again=True)

    assert store.registration() == first
    assert refusal(store) is None


def test_refused_site_registers_anew_by_a_dropped_file(
    settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore
) -> None:
    ensure_registered(with_token(settings), Waits())
    centre.tokens = [NEXT]
    drop(settings, centre, NEXT)
    assert not new_token_given(settings)

    note_refusal(store, "deleted at the centre", NOW)
    assert new_token_given(settings)
    registration = ensure_registered(with_token(settings), Waits())

    assert registration.auth.username == f"robot${NEXT}"
    assert refusal(store) is None
    assert not new_token_given(settings)
    assert not settings.registration_file.exists()


def test_refused_site_whose_new_token_is_refused_keeps_what_it_has(
    settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore
) -> None:
    first = ensure_registered(with_token(settings), Waits())
    note_refusal(store, "deleted at the centre", NOW)
    drop(settings, centre, "made-up-wrong")

    registration = ensure_registered(settings, Waits())

    assert registration == first
    assert not new_token_given(settings)
    refused = refusal(store)
    assert refused is not None
    assert refused.since == NOW


def test_refused_site_and_centre_away_tries_the_new_token_again(
    settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore
) -> None:
    ensure_registered(with_token(settings), Waits())
    note_refusal(store, "deleted at the centre", NOW)
    drop(settings, centre, NEXT)
    centre.tokens, centre.statuses = [NEXT], [503, 404]

    registration = ensure_registered(settings, Waits())

    assert registration.auth.username == f"robot${NEXT}"
    assert centre.asked == [TOKEN, NEXT, NEXT, NEXT]


def test_refusal_is_news_once_and_keeps_its_beginning(store: SatelliteStore) -> None:
    later = NOW.replace(hour=13)

    told = [note_refusal(store, "why", NOW), note_refusal(store, "why", later), note_refusal(store, "other", later)]

    found = refusal(store)
    assert told == [True, False, True]
    assert found is not None
    assert (found.since, found.reason) == (NOW, "other")
    clear_refusal(store)
    assert refusal(store) is None


def test_disk_of_another_machine_is_registered_by_a_dropped_file_alone(
    settings: SatelliteSettings, centre: FakeClaims, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "other-machine-id"
    elsewhere.write_text("another")
    moved = SatelliteStore(settings.data_dir, MachineIdentity({"machine-id": elsewhere}))
    register_now(with_token(settings), None)
    moved.secrets.protect(is_encrypted=True)
    centre.tokens = [NEXT]

    with pytest.raises(OtherMachineError):
        register_now(settings, token_source(SecretStr(NEXT), "--token"))
    assert len(centre.claims) == 1
    drop(settings, centre, NEXT)
    registration = ensure_registered(settings, Waits())

    assert registration.auth.username == f"robot${NEXT}"


def test_encrypted_from_the_first_claim_on(
    settings: SatelliteSettings, centre: FakeClaims, store: SatelliteStore
) -> None:
    if not MachineIdentity().values(0):
        pytest.skip("nothing identifies this machine")
    keys: list[str] = []
    centre.before_answer = lambda: keys.append((store.folder / "claim.json").read_text())

    ensure_registered(changed(with_token(settings), is_encrypted=True), Waits())

    assert centre.claims[0]["claim_key"] not in keys[0]
    assert SECRET not in (store.folder / "registration.json").read_text()
    assert store.registration().auth.password.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[]", "the file"),
        ("{", "the file: is no JSON"),
        ('{"token": "t"}', "ground_control_url: is missing"),
        ('{"ground_control_url": "https://gc"}', "token: is missing"),
        ('{"ground_control_url": "https://gc", "token": 5}', "token"),
        ('{"ground_control_url": "https://gc", "token": "t", "tokn": "made-up-token"}', "tokn: is not known here"),
        ('{"ground_control_url": "gc:8080", "token": "t"}', "ground_control_url: is no http"),
        ('{"ground_control_url": "https://u:made-up-token@gc", "token": "t"}', "ground_control_url"),
        ('{"ground_control_url": "https://gc", "token": "made-up-token x"}', "token is no one-time token"),
        ('{"ground_control_url": "https://gc", "token": ""}', "token is no one-time token"),
        ('{"ground_control_url": "https://gc", "token": "t", "ca": "relative.pem"}', "ca is neither"),
        (" " * 70_000, "more than 65536 bytes"),
        (b"\xff\xfe", "the file"),
    ],
)
def test_registration_file_that_is_wrong_is_named_and_not_shown(
    settings: SatelliteSettings, centre: FakeClaims, content: str | bytes, named: str
) -> None:
    settings.registration_file.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(InvalidInputError) as raised:
        register_now(unset(settings), None)

    assert str(settings.registration_file) in str(raised.value)
    assert named in str(raised.value)
    assert "made-up-token" not in str(raised.value)
    assert centre.claims == []


def test_ca_in_the_file_is_kept_and_remembered(settings: SatelliteSettings, centre: FakeClaims) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nmade up\n-----END CERTIFICATE-----\n"
    drop(settings, centre, ca=pem)

    ensure_registered(settings, Waits())

    verify = verify_option(settings)
    assert isinstance(verify, str)
    assert verify.startswith(str(settings.data_dir))
    with open(verify) as file:  # noqa: PTH123
        assert file.read() == pem
    assert verify_option(changed(settings, ca=settings.data_dir / "own.pem")) == str(settings.data_dir / "own.pem")


def test_logs_show_no_token(settings: SatelliteSettings, centre: FakeClaims, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    centre.statuses = [503, 401]
    drop(settings, centre)
    waits = Waits(*[lambda: None] * 20, settings.registration_file.touch)

    ensure_registered(settings, waits)

    assert TOKEN not in caplog.text
    assert SECRET not in caplog.text
