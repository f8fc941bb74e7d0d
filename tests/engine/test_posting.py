"""Requests end in time, whatever the server sends, and when they are closed."""

import gzip
import re
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from alignkit.engine.sampling import posting
from alignkit.engine.sampling.posting import NoAnswerError, Poster

LARGEST = 100_000


def received(connection):
    """Return a whole request, which may come in pieces; nothing at the connection's end."""
    request = b""
    while piece := connection.recv(65536):
        request += piece
        head, ended, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if ended and len(body) >= int(length[1]):
            break
    return request


@contextmanager
def listening(answer):
    """Call ``answer(connection, request, over)`` for each request; over is set in the end."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)

        def serve(connection):
            with connection:
                try:
                    while request := received(connection):
                        answer(connection, request, over)
                except OSError:  # the client has gone
                    return

        def accept():
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                connection.settimeout(10)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            over.set()
            thread.join()


def repeated(first, piece):
    """Return an answer that sends ``first``, and then ``piece`` for ever, each 20 ms later."""

    def answer(connection, request, over):
        connection.sendall(first)
        while not over.wait(0.02):
            connection.sendall(piece)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"

NEVER_DONE = {
    "nothing": repeated(b"", b""),
    "status line": repeated(b"HTTP/1.1 20", b""),
    "a header": repeated(OK + b"X-Long: ", b"a"),
    "headers": repeated(OK, b"X-Many: a\r\n"),
    "interim responses": repeated(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "content": repeated(OK + b"Content-Length: 9999\r\n\r\n", b" "),
    "half": repeated(OK + b"Content-Length: 9999\r\n\r\nhalf", b""),
}


@pytest.fixture
def poster():
    made = []

    def make(url, **keys):
        made.append(Poster(url, {}, **{"timeout": 0.4, "largest": LARGEST} | keys))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.release()


@pytest.mark.parametrize("name", NEVER_DONE)
def test_the_timeout_is_for_the_whole_attempt(poster, name):
    with listening(NEVER_DONE[name]) as url:
        begun = time.monotonic()
        with pytest.raises(NoAnswerError):
            poster(url).post(b"{}")
    assert time.monotonic() - begun < 20  # 0.4, and for ever without the timer


def whole(content, headers=b""):
    return OK + headers + b"Content-Length: %d\r\n\r\n%b" % (len(content), content)


def test_after_a_request_that_was_ended_the_next_is_answered(poster):
    answers = [lambda c, request, over: c.sendall(whole(b"yes")), NEVER_DONE["a header"]]

    def answer(*asked):
        answers.pop()(*asked)

    with listening(answer) as url:
        one = poster(url)
        with pytest.raises(NoAnswerError):
            one.post(b"{}")
        assert one.post(b"{}")[2] == b"yes"


def test_the_late_timer_of_a_request_does_not_end_the_next(poster, monkeypatch):
    timers = []

    class Timer:
        def __init__(self, seconds, call, words=()):
            timers.append(lambda: call(*words))

        def start(self):
            """Wait for the test."""

        cancel = start

    monkeypatch.setattr(posting.threading, "Timer", Timer)

    def answer(connection, request, over):
        timers[0]()  # in the first request it ends it, later it is late
        connection.sendall(whole(b"yes"))

    with listening(answer) as url:
        one = poster(url)
        with pytest.raises(NoAnswerError):
            one.post(b"{}")
        assert one.post(b"{}")[2] == b"yes"


@pytest.mark.parametrize("length", [LARGEST, LARGEST + 1])
@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_may_have_so_many_bytes(poster, length, packed):
    content = b" " * length
    sent = (
        whole(gzip.compress(content), b"Content-Encoding: gzip\r\n") if packed else whole(content)
    )
    with listening(lambda connection, request, over: connection.sendall(sent)) as url:
        if length > LARGEST:
            with pytest.raises(NoAnswerError, match="more than 100000 bytes"):
                poster(url).post(b"{}")
        else:
            assert poster(url).post(b"{}")[2] == content


def test_closing_ends_what_is_open(poster):
    asked = threading.Event()

    def stall(connection, request, over):
        asked.set()
        over.wait(20)

    found = []

    def post(one):
        with pytest.raises(NoAnswerError):
            one.post(b"{}")
        found.append(time.monotonic())

    with listening(stall) as url:
        one = poster(url, timeout=20)
        thread = threading.Thread(target=post, args=(one,))
        thread.start()
        assert asked.wait(10)
        closed = time.monotonic()
        one.close()
        thread.join(10)
        assert found
        assert found[0] - closed < 3
        with pytest.raises(NoAnswerError, match="closed"):
            one.post(b"{}")
