"""Users are in one small file, their passwords as hashes that take long to try."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from scripts.commands.users import main
from scripts.deploy.service.users import Role, User, Users
from scripts.utils.errors import UserError

PASSWORD = "correct horse battery"


@pytest.fixture
def users(tmp_path: Path) -> Users:
    users = Users(tmp_path / "users.json")
    users.add("Zoë Ann", Role.LABELLER, PASSWORD)
    return users


def test_a_password_is_known_and_stands_nowhere(users: Users) -> None:
    assert users.is_password("Zoë Ann", PASSWORD)
    assert not users.is_password("Zoë Ann", PASSWORD + " ")
    assert not users.is_password("somebody", PASSWORD)
    content = users.path.read_text()
    assert PASSWORD not in content and "scrypt$32768$8$3$" in content
    assert stat.S_IMODE(users.path.stat().st_mode) == 0o600


def test_the_same_password_twice_is_kept_as_two_hashes(users: Users) -> None:
    before = users.path.read_text()
    users.add("Zoë Ann", Role.LABELLER, PASSWORD)
    assert users.path.read_text() != before
    assert users.is_password("Zoë Ann", PASSWORD)


def test_who_is_taken_out_is_out_at_once_for_who_has_read_the_file_before(users: Users) -> None:
    other = Users(users.path)
    assert other.find("Zoë Ann") == User("Zoë Ann", Role.LABELLER)
    users.add("boss", Role.ADMIN, None)
    users.remove("Zoë Ann")
    assert other.find("Zoë Ann") is None
    assert other.all() == [User("boss", Role.ADMIN)]
    assert not other.is_password("boss", "") and not other.is_password("boss", PASSWORD), "a proxy says who it is"


def test_a_role_may_do_what_those_before_it_may() -> None:
    assert [[role.may_act_as(other) for other in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


@pytest.mark.parametrize(("name", "password"), [("", PASSWORD), ("a\nb", PASSWORD), (" a", PASSWORD), ("a", "short")])
def test_names_and_passwords_that_are_none_are_refused(users: Users, name: str, password: str) -> None:
    before = users.path.read_bytes()
    with pytest.raises(UserError):
        users.add(name, Role.READER, password)
    assert users.path.read_bytes() == before


def test_a_damaged_file_is_named(users: Users) -> None:
    users.path.write_text('{"Zoe": {"role": "king"}}')
    with pytest.raises(UserError, match="users.json"):
        users.all()


def test_the_command_adds_lists_and_takes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "users.json")
    with (tmp_path / "typed").open("w+") as typed:
        typed.write(f"{PASSWORD}\n")
        typed.seek(0)
        monkeypatch.setattr("sys.stdin", typed)
        assert main([file, "add", "Zoe", "--role", "admin"]) == 0
    assert main([file, "list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["Zoe", "admin"]
    assert Users(file).is_password("Zoe", PASSWORD)
    assert main([file, "remove", "Zoe"]) == 0
    assert main([file, "remove", "Zoe"]) == 1
    assert "has no user of this name" in capsys.readouterr().err
