"""A chat endpoint of the standard library that answers as it is told to, well or badly."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked, self.active, self.most = answer, [], 0, 0
        self.headers = {}
        self.lock, self.over = threading.Lock(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        with server.lock:
            server.asked.append(text)
            server.headers = self.headers
            number = server.asked.count(text)
            server.active += 1
            server.most = max(server.most, server.active)
        try:
            status, headers, content = server.answer(server, text, number)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for piece in [content] if isinstance(content, bytes) else content:
                self.wfile.write(piece)
        except OSError:  # the client has gone
            self.close_connection = True
        finally:
            with server.lock:
                server.active -= 1


def said(text, tokens=10):
    """Return a whole answer whose reply is ``text``."""
    body = {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": tokens}}
    return 200, {}, json.dumps(body).encode()


@contextmanager
def serving(answer):
    """Serve ``answer(server, text, how often it was asked)`` -> status, headers, content."""
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
