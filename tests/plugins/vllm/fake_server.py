"""Stands in for vLLM's server where only its processes matter: two, an HTTP server and a helper.

It takes weights, and answers every prompt with id 1 until ``max_tokens``; with FAKE_KEYED set, with
ids drawn by the request's own seed, as vLLM does. In the file FAKE_LOG it leaves a line for its
start, each delivery of weights and each prompt; at the line FAKE_DIES, as "weights 2" for the
second delivery to any server, it ends.
"""

import fcntl
import json
import os
import random
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HELD = [""]
LOCK = threading.Lock()


def log(what):
    if not (path := os.environ.get("FAKE_LOG")):
        return
    with LOCK, open(path, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{what}\n")
        file.seek(0)
        line = f"{what} {file.read().splitlines().count(what)}"
    if line == os.environ.get("FAKE_DIES"):
        os._exit(9)


def called(method, args):
    if method == "alignkit_fetch":
        from alignkit_vllm.weights.sockets import receive

        host, port, token, timeout, version = args
        log("weights")
        HELD[0] = "" if not list(receive(host, int(port), token, float(timeout))) else version
        return None
    if method == "alignkit_columns":
        return {"packed": {}, "columns": {}, "dtype": "float32"}
    return HELD[0]


def choices(body):
    return [{"index": i, "finish_reason": "length", **answer(body, i)} for i in range(body["n"])]


def answer(body, number):
    ids = [1] * body["max_tokens"]
    if os.environ.get("FAKE_KEYED"):
        assert not {"RANK", "WORLD_SIZE", "MASTER_PORT"} & os.environ.keys()
        draw = random.Random(f"{body['seed'] + number}/{body['prompt']}")
        ids = [draw.randrange(40, 100) for _ in ids]
    return {"token_ids": ids, "text": "", "logprobs": {"token_logprobs": [-1.0] * len(ids)}}


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
            log("prompt")
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
    log("start")
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (port,) = (word.partition("=")[2] for word in sys.argv if word.startswith("--port="))
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
