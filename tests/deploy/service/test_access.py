"""Users are asked for where others reach the service, roles where something is at stake, patience of who guesses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.deploy.service.access import NOBODY, Access, Throttle, asker, require, token_of
from scripts.deploy.service.problems import Problem
from scripts.deploy.service.users import Role, Users
from scripts.utils.errors import UserError

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    users = Users(tmp_path_factory.mktemp("users") / "users.json")
    for role in Role:
        users.add(f"a {role}", role, PASSWORD)
    return str(users.path)


def request(access: Access, address: str = "192.0.2.9", **headers: str) -> Any:
    state = SimpleNamespace(access=access)
    client = SimpleNamespace(host=address)
    return SimpleNamespace(headers=headers, client=client, app=SimpleNamespace(state=state))


def status(act: Callable[[], Any]) -> int:
    """Return what is answered: 200, or the status of the refusal."""
    try:
        act()
    except Problem as refused:
        return refused.status
    return 200


def doors(access: Access, **request_: str) -> list[int]:
    """Return what is answered at the door of each role."""
    return [status(lambda: require(role)(asker(request(access, **request_)))) for role in Role]  # noqa: B023


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_another_address_needs_users(host: str, file: str) -> None:
    with pytest.raises(UserError, match=r"name a file of users \(key 'users'"):
        Access(host)
    assert doors(Access(host, file)) == [401, 401, 401]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_needs_none(host: str) -> None:
    access = Access(host)
    assert (doors(access), access.enabled) == ([200, 200, 200], False)
    assert asker(request(access)) == NOBODY


def test_a_file_of_users_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Access("127.0.0.1", str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("name", "expected"), [("reader", [200, 403, 403]), ("labeller", [200, 200, 403]), ("admin", [200, 200, 200])]
)
def test_each_door_opens_to_its_role(name: str, expected: list[int], file: str) -> None:
    access = Access("0.0.0.0", file)
    token = access.sign_in(f"a {name}", PASSWORD, "192.0.2.9")
    assert doors(access, authorization=f"Bearer {token}") == expected
    assert asker(request(access, authorization=f"bearer  {token} ")).name == f"a {name}"
    assert doors(access, authorization="Bearer wrong") == [401] * 3


def test_a_token_ends(file: str) -> None:
    access = Access("0.0.0.0", file, signed_in_hours=0)
    token = access.sign_in("a reader", PASSWORD, "192.0.2.9")
    assert doors(access, authorization=f"Bearer {token}") == [401] * 3


def test_a_proxy_is_believed_and_nobody_else(file: str) -> None:
    access = Access("0.0.0.0", file, "x-remote-user", ["192.0.2.7"])
    named = {"x-remote-user": "a labeller"}
    assert doors(access, address="192.0.2.7", **named) == [200, 200, 403]
    assert doors(access, address="192.0.2.9", **named) == [401] * 3
    assert doors(access, address="192.0.2.7", **{"x-remote-user": "a stranger"}) == [401] * 3
    assert doors(access, address="192.0.2.7") == [401] * 3
    with pytest.raises(UserError, match="name a file of users"):
        Access("127.0.0.1", None, "x-remote-user")


def test_forty_wrong_passwords_in_a_row_are_not_tried(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(Users, "is_password", lambda self, name, password: bool(tried.append(password)))
    access = Access("0.0.0.0", file)
    found = [status(lambda: access.sign_in("an admin", f"guess {n}", "192.0.2.9")) for n in range(40)]  # noqa: B023
    assert found == [401] * 5 + [429] * 35
    assert len(tried) == 5
    assert status(lambda: access.sign_in("a reader", "other", "192.0.2.9")) == 429, "the address waits"
    assert status(lambda: access.sign_in("an admin", "other", "192.0.2.8")) == 429, "the name waits"
    assert status(lambda: access.sign_in("a reader", "other", "192.0.2.8")) == 401


def test_pauses_grow_and_end_and_a_right_password_ends_them() -> None:
    now = 0.0
    throttle = Throttle(lambda: now)

    def waits() -> bool:
        return status(lambda: throttle.check("a", "b")) == 429

    for _ in range(5):
        assert not waits()
        throttle.failed("a", "b")
    assert waits()
    now += 1
    assert not waits()
    throttle.failed("a", "b")
    now += 1
    assert waits(), "two seconds now"
    now += 1
    throttle.succeeded("a", "b")
    throttle.failed("a", "b")
    assert not waits()
    for _ in range(40):
        throttle.failed("a")
    now += 300
    assert not waits(), "five minutes at most"


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc "])
def test_the_scheme_is_read_in_any_case(header: str) -> None:
    assert token_of(request(Access("127.0.0.1"), authorization=header)) == "abc"


@pytest.mark.parametrize("header", ["abc", "Basic abc", "Bearerabc", ""])
def test_another_scheme_is_no_token(header: str) -> None:
    assert token_of(request(Access("127.0.0.1"), authorization=header)) == ""
