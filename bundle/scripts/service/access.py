"""Who may ask for what: tokens, and where they are needed."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from fastapi import Request

from scripts.errors import UserError
from scripts.listening import is_this_machine
from scripts.service.problems import Problem

SCHEME = "bearer "


@dataclass(frozen=True)
class Access:
    """The tokens.

    Args:
        host: address that is listened on.
        token: asked of everybody; ``None``: of nobody, which is allowed on this machine alone.
        admin_token: asked of who trains, deletes, or takes the model or the log away; it is good for all else too.

    Raises:
        UserError: for an address that needs tokens.
    """

    host: str
    token: str | None = field(default=None, repr=False)
    admin_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not is_this_machine(self.host) and not (self.token and self.admin_token):
            raise UserError(
                f"anybody could reach {self.host}: set CONTINUAL_TOKEN and CONTINUAL_ADMIN_TOKEN in the environment "
                "(keys 'token', 'admin_token'), or listen on 127.0.0.1 (key 'host')"
            )
        if self.token and self.token == self.admin_token:
            raise UserError("token and admin_token are the same: give two (keys 'token', 'admin_token')")

    @property
    def enabled(self) -> bool:
        """Whether any token is asked for."""
        return bool(self.token or self.admin_token)

    def knows(self, token: str) -> bool:
        """Say whether it is one of the tokens."""
        return self.is_admin(token) or _equal(token, self.token)

    def is_admin(self, token: str) -> bool:
        """Say whether it is the admin's."""
        return _equal(token, self.admin_token)


def _equal(given: str, expected: str | None) -> bool:
    return bool(expected) and hmac.compare_digest(given.encode(), str(expected).encode())


def token_of(request: Request) -> str:
    """Return the token that a request carries, or nothing."""
    header = request.headers.get("authorization", "")
    return header[len(SCHEME) :].strip() if header.lower().startswith(SCHEME) else ""


def user(request: Request) -> None:
    """Let in who may ask.

    Raises:
        Problem: 401.
    """
    access: Access = request.app.state.access
    if access.token and not access.knows(token_of(request)):
        raise Problem(401, "give a token: Authorization: Bearer TOKEN")


def admin(request: Request) -> None:
    """Let in who may train and delete.

    Raises:
        Problem: 401 without a token that is known, 403 where it is not the admin's.
    """
    access: Access = request.app.state.access
    if not access.enabled or access.is_admin(token_of(request)):
        return
    user(request)
    raise Problem(403, "this needs the admin token: Authorization: Bearer ADMIN_TOKEN")
