"""Who asks, and for what they may ask: sign-in, tokens that name a user, and roles."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import Annotated

from fastapi import Depends, Request

from scripts.deploy.listening import is_this_machine
from scripts.deploy.service.problems import Cause, Problem
from scripts.deploy.service.users import Role, User, Users
from scripts.utils.errors import UserError

SCHEME = "bearer "
NOBODY = User("anybody on this machine", Role.ADMIN)
"""Who asks where nobody signs in."""
FREE_TRIES, LONGEST_PAUSE = 5, 300.0
"""Wrong passwords in a row before a pause, and seconds of the longest; each pause is twice the one before."""
MOST_REMEMBERED = 10_000


class Throttle:
    """Makes who gave a wrong password wait, by the name that was given and by the address that it came from.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._access = threading.Lock()
        self._failures: dict[str, tuple[int, float]] = {}

    def check(self, *sources: str) -> None:
        """Let in who need not wait.

        Raises:
            Problem: 429.
        """
        with self._access:
            wait = max(self._failures.get(source, (0, 0.0))[1] for source in sources) - self.clock()
        if wait > 0:
            seconds = ceil(wait)
            raise Problem(429, f"too many wrong passwords: wait {seconds} seconds", Cause.WAIT, n=seconds)

    def failed(self, *sources: str) -> None:
        """Remember a wrong password."""
        with self._access:
            now = self.clock()
            for source in sources:
                count = self._failures.pop(source, (0, 0.0))[0] + 1
                pause = 0.0 if count < FREE_TRIES else min(2.0 ** (count - FREE_TRIES), LONGEST_PAUSE)
                self._failures[source] = count, now + pause
            while len(self._failures) > MOST_REMEMBERED:
                del self._failures[next(iter(self._failures))]

    def succeeded(self, *sources: str) -> None:
        """Forget what went wrong before."""
        with self._access:
            for source in sources:
                self._failures.pop(source, None)


class Access:
    """Knows who asks.

    Args:
        host: address that is listened on.
        users: file of those who may ask; ``None``: anybody may ask for anything, which is allowed on this machine
            alone.
        user_header: name of a header in which a proxy says who has signed in there; ``None``: passwords are asked for.
        proxies: addresses of the proxies that are believed.
        signed_in_hours: until a token is worth nothing any more.

    Raises:
        UserError: for an address that needs users, or a header without them.
    """

    def __init__(
        self,
        host: str,
        users: str | None = None,
        user_header: str | None = None,
        proxies: Sequence[str] = (),
        signed_in_hours: float = 12,
    ) -> None:
        if users is None and (user_header is not None or not is_this_machine(host)):
            raise UserError(
                f"anybody could reach {host}: name a file of users (key 'users'; dynammo users "
                "makes it), or listen on 127.0.0.1 without a proxy (keys 'host', 'user_header')"
            )
        self.host = host
        self.users = None if users is None else Users(users)
        self.user_header = user_header
        self.proxies = frozenset(proxies)
        self.seconds = 3600 * signed_in_hours
        self.throttle = Throttle()
        self._hashing = threading.Lock()  # one at a time: who tries many does not take all processors
        self._tokens: dict[str, tuple[str, float]] = {}
        if self.users is not None:
            self.users.all()  # now, not when the first user asks

    @property
    def enabled(self) -> bool:
        """Whether anybody must say who they are."""
        return self.users is not None

    @property
    def sends_tokens(self) -> bool:
        """Whether a request names its user by a token, and not by what a browser or a proxy adds to any."""
        return self.enabled and self.user_header is None

    def sign_in(self, name: str, password: str, address: str) -> str:
        """Return a token for a user.

        Args:
            name: of the user.
            password: theirs.
            address: that they ask from.

        Raises:
            Problem: 401 for a name and a password that do not belong together, 429 after too many.
        """
        sources = (f"name {name}", f"address {address}")
        self.throttle.check(*sources)
        with self._hashing:
            self.throttle.check(*sources)  # of those that waited here, the first may have failed
            if self.users is None or not self.users.is_password(name, password):
                self.throttle.failed(*sources)
                raise Problem(401, "no user has this name and password", Cause.WRONG_PASSWORD)
        self.throttle.succeeded(*sources)
        token = secrets.token_urlsafe(32)
        now = time.time()
        kept = {key: value for key, value in self._tokens.items() if value[1] > now}
        self._tokens = {**kept, _digest(token): (name, now + self.seconds)}
        return token

    def who(self, request: Request) -> User:
        """Return who asks.

        Raises:
            Problem: 401, nobody that is known.
        """
        if self.users is None:
            return NOBODY
        name = self._named_by_proxy(request) if self.user_header else self._named_by_token(token_of(request))
        user = None if name is None else self.users.find(name)
        if user is None:
            raise Problem(401, "sign in: the request names no user that is known", Cause.SIGN_IN)
        return user

    def _named_by_proxy(self, request: Request) -> str | None:
        address = request.client.host if request.client else ""
        return request.headers.get(str(self.user_header)) if address in self.proxies else None

    def _named_by_token(self, token: str) -> str | None:
        name, until = self._tokens.get(_digest(token), (None, 0.0))
        return name if until > time.time() else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def token_of(request: Request) -> str:
    """Return the token that a request carries, or nothing."""
    header = request.headers.get("authorization", "")
    return header[len(SCHEME) :].strip() if header.lower().startswith(SCHEME) else ""


def asker(request: Request) -> User:
    """Return who asks."""
    access: Access = request.app.state.access
    return access.who(request)


def require(role: Role) -> Callable[[User], None]:
    """Return what lets in who has a role.

    Raises:
        Problem: 401 for nobody that is known, 403 for who may do less.
    """

    def check(user: Annotated[User, Depends(asker)]) -> None:
        if not user.role.may_act_as(role):
            raise Problem(403, f"this is for the role {role}; you have {user.role}", Cause.ROLE, role=role)

    return check
