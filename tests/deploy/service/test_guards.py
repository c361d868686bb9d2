"""The guards before the routes: no more is read than allowed, other sites' pages stay out, no name is written down."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from scripts.deploy.logs import JsonFormatter
from scripts.deploy.service.guards import BodyLimit, RequestLimits, SameOrigin, Watch
from scripts.utils.errors import UserError

LIMIT = 100
LIMITS = RequestLimits(max_bytes=LIMIT, max_held=250, body_seconds=0.3, idle_seconds=5, connections=10)
SECRET = "Doe^Jane"


class Client:
    """Sends a request to an application, piece by piece, and says how much of it was taken."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.taken = 0

    def ask(self, pieces: list[bytes], path: str = "/", **headers: str) -> tuple[int, Any]:
        """Return status and content of the answer."""
        messages: list[Any] = []
        waiting = list(pieces)
        self.taken = 0

        async def receive() -> dict[str, Any]:
            body = waiting.pop(0) if waiting else b""
            self.taken += len(body)
            return {"type": "http.request", "body": body, "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            messages.append(message)

        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": named}
        asyncio.run(self.application(scope, receive, send))
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return messages[0]["status"], json.loads(body or b"null")


def application() -> FastAPI:
    """Return an application that counts what it is sent, or breaks."""
    app = FastAPI(exception_handlers={Exception: lambda request, error: JSONResponse(None, 500)})

    @app.post("/")
    async def count(request: Request) -> int:
        return len(await request.body())

    @app.post("/broken/{name}")
    def fail(name: str) -> None:
        raise ValueError(name)

    return app


@pytest.mark.parametrize("pieces", [[b"a" * 100], [b"a" * 40, b"a" * 60], [b""], [b"a"] * 100])
def test_what_is_allowed_passes(pieces: list[bytes]) -> None:
    assert Client(BodyLimit(application(), LIMITS)).ask(pieces) == (200, sum(map(len, pieces)))


def test_more_than_allowed_is_refused_before_all_of_it_has_come() -> None:
    client = Client(BodyLimit(application(), LIMITS))
    status, content = client.ask([b"a" * 40] * 1000)
    assert (status, client.taken) == (413, 120)
    assert "at most 100 bytes" in content["detail"]


def test_a_length_that_is_too_large_is_refused_before_anything_has_come() -> None:
    client = Client(BodyLimit(application(), LIMITS))
    assert (client.ask([b"a"], content_length="201")[0], client.taken) == (413, 0)


def test_who_sends_a_little_too_much_is_heard_out_and_told() -> None:
    client = Client(BodyLimit(application(), LIMITS))
    assert (client.ask([b"a" * 60, b"a" * 60], content_length="120")[0], client.taken) == (413, 120)


def test_a_body_that_does_not_end_is_answered() -> None:
    assert in_turns(BodyLimit(application(), LIMITS), [[b"a", None]]) == [408]


def test_no_more_bodies_are_held_than_allowed_and_room_is_made_again() -> None:
    limited = BodyLimit(application(), LIMITS)
    assert sorted(in_turns(limited, [[b"a" * 90, b"a"]] * 4)) == [200, 200, 503, 503]
    assert in_turns(limited, [[b"a" * 90, b"a"]] * 2) == [200, 200]


def in_turns(application: Any, requests: list[list[bytes | None]]) -> list[int]:
    """Send requests at once, a piece of each in turn, and return the statuses; after ``None`` nothing comes."""
    statuses: list[int] = []

    async def ask(pieces: list[bytes | None]) -> None:
        waiting = list(pieces)

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            if waiting[0] is None:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
        await application(scope, receive, send)

    async def ask_all() -> None:
        await asyncio.gather(*map(ask, requests))

    asyncio.run(ask_all())
    return statuses


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"body_seconds is 0: give a number above 0 \(key 'limits#body_seconds'\)"):
        RequestLimits(max_bytes=1, max_held=1, body_seconds=0, idle_seconds=1, connections=1)


@pytest.mark.parametrize("length", ["-1", "abc", "", "1e9", "²"])
def test_a_length_that_is_none_is_not_believed(length: str) -> None:
    assert Client(BodyLimit(application(), LIMITS)).ask([b"a" * 101], content_length=length)[0] == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8000"}, 200),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "[::1]:8000", "origin": "http://[::1]:8000"}, 200),
        ({"host": "localhost:8000", "origin": "http://localhost:9000"}, 403),
        ({"host": "localhost:8000", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:8000", "origin": "null"}, 403),
        ({"host": "evil.example:8000", "origin": "http://evil.example:8000"}, 421),
        ({"host": "[broken"}, 421),
        ({}, 421),
    ],
)
def test_pages_of_other_sites_stay_out_also_under_a_name_of_their_own(headers: dict[str, str], status: int) -> None:
    guarded = SameOrigin(application(), ("localhost", "127.0.0.1", "::1"))
    assert Client(guarded).ask([b""], **headers)[0] == status


def test_a_fault_is_counted_and_written_down_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    client = Client(Watch(application(), lambda *observed: seen.append(observed[:3])))
    with caplog.at_level(logging.INFO):
        assert client.ask([b""], f"/broken/{SECRET}", host="localhost")[0] == 500
        assert client.ask([b""], f"/{SECRET}", host="localhost")[0] == 404
    assert seen == [("POST", "/broken/{name}", 500), ("POST", "(no route)", 404)]
    assert "ValueError in " in caplog.text and SECRET not in caplog.text


def test_an_answer_names_the_id_by_which_its_lines_are_found(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    heads: list[dict[bytes, bytes]] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            heads.append(dict(message.get("headers", ())))

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        sent = [(b"x-request-id", SECRET.encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": sent}
        await Watch(application(), lambda *_: None)(scope, receive, send)

    with caplog.at_level(logging.INFO, "scripts"):
        asyncio.run(ask())
    line = json.loads(caplog.text.splitlines()[-1])
    assert line["message"].startswith("POST / 200") and heads[0][b"x-request-id"].decode() == line["request"]
    assert SECRET not in caplog.text
