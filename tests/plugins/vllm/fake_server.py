"""Stands in for vLLM's server where only its processes matter: two, an HTTP server and a helper.

It takes weights, and answers every prompt with id 1 until ``max_tokens``.
"""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HELD = [""]


def called(method, args):
    if method == "alignkit_fetch":
        from alignkit_vllm.weights.sockets import receive

        host, port, token, timeout, version = args
        HELD[0] = "" if not list(receive(host, int(port), token, float(timeout))) else version
        return None
    if method == "alignkit_columns":
        return {"packed": {}, "columns": {}, "dtype": "float32"}
    return HELD[0]


def choices(body):
    ids = [1] * body["max_tokens"]
    one = {"token_ids": ids, "text": "", "logprobs": {"token_logprobs": [-1.0] * len(ids)}}
    return [{"index": i, "finish_reason": "length", **one} for i in range(body["n"])]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        models = {"data": [{"id": "fake", "max_model_len": 512}]}
        self.reply({"/version": {"version": "0.32.0"}, "/v1/models": models}.get(self.path, {}))

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(size) or "null")
        if self.path == "/collective_rpc":
            self.reply({"results": [called(body["method"], body["args"])]})
        elif self.path == "/v1/completions":
            self.reply({"choices": choices(body)})
        else:
            self.reply({"success": True})

    def reply(self, found):
        text = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Say nothing."""


if __name__ == "__main__":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (port,) = (word.partition("=")[2] for word in sys.argv if word.startswith("--port="))
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
