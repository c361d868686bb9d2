"""Tokens are asked for where others could reach the service, and the admin's where something is at stake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from scripts.errors import UserError
from scripts.service.access import Access, admin, token_of, user
from scripts.service.problems import Problem

TOKENS = {"token": "plain", "admin_token": "secret"}


def request(access: Access, header: str | None = None) -> Any:
    headers = {} if header is None else {"authorization": header}
    return SimpleNamespace(headers=headers, app=SimpleNamespace(state=SimpleNamespace(access=access)))


def status(door: Any, access: Access, token: str | None) -> int:
    """Return what a door says: 200, or the status of its refusal."""
    try:
        door(request(access, None if token is None else f"Bearer {token}"))
    except Problem as refused:
        return refused.status
    return 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
@pytest.mark.parametrize("given", [{}, {"token": "a"}, {"admin_token": "a"}, {"token": "", "admin_token": "a"}])
def test_another_address_needs_both_tokens(host: str, given: dict[str, str]) -> None:
    with pytest.raises(UserError, match="CONTINUAL_TOKEN"):
        Access(host, **given)
    Access(host, **TOKENS)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_needs_none(host: str) -> None:
    access = Access(host)
    assert (status(user, access, None), status(admin, access, None), access.enabled) == (200, 200, False)


def test_the_two_tokens_must_differ() -> None:
    with pytest.raises(UserError, match="are the same"):
        Access("127.0.0.1", "a", "a")


@pytest.mark.parametrize(
    ("token", "expected"),
    [(None, (401, 401)), ("wrong", (401, 401)), ("", (401, 401)), ("plain", (200, 403)), ("secret", (200, 200))],
)
def test_each_door_opens_to_its_token(token: str | None, expected: tuple[int, int]) -> None:
    access = Access("0.0.0.0", **TOKENS)
    assert (status(user, access, token), status(admin, access, token)) == expected


def test_without_an_admin_token_nobody_is_admin_where_a_token_is_set() -> None:
    access = Access("127.0.0.1", token="plain")
    assert (status(admin, access, "plain"), status(admin, access, "")) == (403, 401)


def test_with_an_admin_token_alone_all_may_ask_and_one_may_train() -> None:
    access = Access("127.0.0.1", admin_token="secret")
    assert (status(user, access, None), status(admin, access, None), status(admin, access, "secret")) == (200, 403, 200)


def test_a_token_is_shown_nowhere() -> None:
    assert "plain" not in repr(Access("127.0.0.1", **TOKENS)) and "secret" not in repr(Access("127.0.0.1", **TOKENS))


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc "])
def test_the_scheme_is_read_in_any_case(header: str) -> None:
    assert token_of(request(Access("127.0.0.1"), header)) == "abc"


@pytest.mark.parametrize("header", ["abc", "Basic abc", "Bearerabc", ""])
def test_another_scheme_is_no_token(header: str) -> None:
    assert token_of(request(Access("127.0.0.1"), header)) == ""
