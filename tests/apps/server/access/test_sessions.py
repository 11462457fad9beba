"""Sessions of users that have logged in."""

from __future__ import annotations

from lib.server.access.identity import Identity, Role
from lib.server.access.sessions import MOST, LoginSessions

ANNA = Identity("anna", Role.ANNOTATOR)


def test_a_session_is_found_until_it_expires() -> None:
    now = [0.0]
    sessions = LoginSessions(60, lambda: now[0])
    token = sessions.open(ANNA)
    now[0] = 59
    found = sessions.find(token)
    assert found is not None
    assert found.identity == ANNA
    now[0] = 60
    assert sessions.find(token) is None


def test_a_session_ends_no_later_than_the_token_it_was_opened_with() -> None:
    now = [0.0]
    sessions = LoginSessions(60, lambda: now[0])
    short, long = sessions.open(ANNA, seconds=5), sessions.open(ANNA, seconds=500)
    now[0] = 10
    assert sessions.find(short) is None
    assert sessions.find(long)
    now[0] = 70
    assert sessions.find(long) is None


def test_a_closed_session_is_not_found() -> None:
    sessions = LoginSessions(60)
    token = sessions.open(ANNA)
    sessions.close(token)
    assert sessions.find(token) is None


def test_the_oldest_session_ends_when_there_are_too_many() -> None:
    sessions = LoginSessions(60)
    tokens = [sessions.open(ANNA) for _ in range(MOST + 1)]
    assert sessions.find(tokens[0]) is None
    assert sessions.find(tokens[1])
