"""A second process that speaks the protocol of text-embeddings-inference, over hashed vectors.

`python -m tests.kb.embedders.tei_server '{"busy": 2}'` prints its port. Options: `busy`, `failing`:
how many requests are answered 429 or 500 first; `key`; `model_id`; `max_batch`; `plain`: answer
everything with a page, as some other server would.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kb.embedders.hashing import HashingEmbedder

MAX_INPUT_LENGTH = 64
embedder = HashingEmbedder(dimensions=32, max_tokens=10_000)


class Handler(BaseHTTPRequestHandler):
    options: dict[str, Any] = {}

    def do_GET(self) -> None:
        if self.refuse():
            return
        self.answer(
            200,
            {
                "model_id": self.options.get("model_id", "/data/hashing"),
                "max_input_length": MAX_INPUT_LENGTH,
                "max_client_batch_size": self.options.get("max_batch", 32),
            },
        )

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refuse():
            return
        inputs = payload["inputs"]
        if not all(inputs):
            self.answer(422, {"error": "`inputs` cannot be empty", "error_type": "Validation"})
        elif len(inputs) > self.options.get("real_max_batch", self.options.get("max_batch", 32)):
            self.answer(413, {"error": "batch size", "error_type": "Validation"})
        elif self.path == "/tokenize":
            self.answer(200, [[{"id": 0}] * count for count in embedder.count_tokens(inputs)])
        elif max(embedder.count_tokens(inputs)) > MAX_INPUT_LENGTH:
            self.answer(
                413, {"error": "`inputs` must have less tokens", "error_type": "Validation"}
            )
        else:
            assert payload["normalize"]
            assert not payload["truncate"]
            self.answer(200, embedder.embed_passages(inputs).tolist())

    def refuse(self) -> bool:
        if self.options.get("plain"):
            self.answer(200, "<html>Welcome</html>")
            return True
        if self.headers.get("Authorization", "") != self.options.get("key", ""):
            self.answer(401, {"error": "key"})
            return True
        for name, status in (("busy", 429), ("failing", 500)):
            if self.options.get(name, 0) > 0:
                self.options[name] -= 1
                self.answer(status, {"error": name, "error_type": "Overloaded"})
                return True
        return False

    def answer(self, status: int, content: Any) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


if __name__ == "__main__":
    Handler.options = json.loads(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
