from __future__ import annotations

from typing import TYPE_CHECKING

import bcrypt
import pytest

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.registry.htpasswd import HtpasswdAuthenticator, remove_user, set_password

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # Four rounds: the cheapest bcrypt there is.
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    path = tmp_path / "htpasswd"
    path.write_text(f"# who may write\n\nwriter:{hashed}\nplain:secret\nbroken\n")
    return path


@pytest.mark.parametrize(
    ("username", "password", "is_right"),
    [
        ("writer", "secret", True),
        ("writer", "wrong", False),
        ("writer", "", False),
        ("nobody", "secret", False),
        ("plain", "secret", False),
        ("", "", False),
        ("writer", "s" * 100, False),
        ("writer", "nul\0", False),
    ],
)
def test_verify_table(path: Path, username: str, password: str, is_right: bool) -> None:  # noqa: FBT001
    authenticator = HtpasswdAuthenticator(path)

    assert authenticator.verify(username, password) is is_right
    assert authenticator.verify(username, password) is is_right


def test_verify_remembers_what_was_right(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = HtpasswdAuthenticator(path)
    assert authenticator.verify("writer", "secret")

    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: pytest.fail("asked bcrypt again"))

    assert authenticator.verify("writer", "secret")


def test_verify_unknown_user_costs_as_much(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[bytes] = []

    def check(_password: bytes, hashed: bytes) -> bool:
        costs.append(hashed[4:6])
        return True

    monkeypatch.setattr(bcrypt, "checkpw", check)

    assert HtpasswdAuthenticator(path).verify("nobody", "secret") is False
    assert costs == [b"04"]


def test_verify_file_replaced_takes_effect_at_once(path: Path) -> None:
    authenticator = HtpasswdAuthenticator(path)
    assert authenticator.verify("writer", "secret")

    set_password(path, "writer", "changed")
    set_password(path, "second", "another")

    assert not authenticator.verify("writer", "secret")
    assert authenticator.verify("writer", "changed")
    assert authenticator.verify("second", "another")
    assert remove_user(path, "writer") is True
    assert not authenticator.verify("writer", "changed")


def test_verify_file_missing_lets_nobody_in_until_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "later" / "htpasswd"
    authenticator = HtpasswdAuthenticator(path)
    assert not authenticator.verify("writer", "secret")

    set_password(path, "writer", "secret")

    assert authenticator.verify("writer", "secret")


def test_set_password_keeps_other_lines_and_mode(path: Path) -> None:
    others = [line for line in path.read_text().splitlines() if not line.startswith("writer:")]

    set_password(path, "writer", "x" * 72)

    *kept, last = path.read_text().splitlines()
    assert kept == others
    assert last.startswith("writer:$2y$")
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == [".htpasswd.lock", "htpasswd"]


@pytest.mark.parametrize(
    ("username", "password"),
    [("", "x"), ("a:b", "x"), ("a b", "x"), ("a\nb", "x"), ("#a", "x"), ("a", ""), ("a", "x" * 73), ("a", "x\0")],
)
def test_set_password_impossible_is_refused(tmp_path: Path, username: str, password: str) -> None:
    with pytest.raises(InvalidInputError):
        set_password(tmp_path / "htpasswd", username, password)

    assert not (tmp_path / "htpasswd").exists()


def test_remove_user_unknown_changes_nothing(path: Path) -> None:
    before = path.stat()

    assert remove_user(path, "nobody") is False
    assert remove_user(path.with_name("missing"), "nobody") is False

    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not path.with_name("missing").exists()
