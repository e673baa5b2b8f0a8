"""The routes of the model server, as an ASGI application. No torch."""

import asyncio
import hmac
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tokenizers import Tokenizer

from workers.serving import bodies, shapes
from workers.serving.bodies import Asked, Refused, Unreadable
from workers.serving.generation import (
    CannotLoad,
    Generation,
    GenerationFailed,
    Limits,
    Token,
    Wanted,
)
from workers.serving.metrics import Metrics

KEEP_ALIVE_S = 15.0
PROBE_TIMEOUT_S = 30.0
T = TypeVar("T")


class Model(Protocol):
    """What the application needs of the engine and its adapters."""

    healthy: bool
    batch_size: int

    @property
    def is_alive(self) -> bool: ...

    @property
    def queue_size(self) -> int: ...

    def submit(self, generation: Generation) -> None: ...

    def loaded(self) -> dict[str, Path]:
        """Return the folder of each adapter by its name."""

    def load(self, name: str, folder: Path) -> None:
        """Raise CannotLoad, or serve the adapter from now on."""

    def unload(self, name: str) -> bool:
        """Answer no new request with the adapter; False: there was none."""


class Gone(Exception):
    """The client has gone; nobody reads what would be sent."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`may_load`: False refuses loading over HTTP, where anybody could reach it without a key.

    `silent_fallback` answers unknown adapters with the base model, as TGI does.
    """

    model_id: str
    limits: Limits
    compute_type: str = "cpu"
    api_key: str = ""
    may_load: bool = True
    silent_fallback: bool = False


@dataclass(eq=False)
class Request:
    """One HTTP request with its answer's channel."""

    scope: Any
    receive: Callable[[], Awaitable[Any]]
    send: Callable[[Any], Awaitable[None]]
    started_at: float = field(default_factory=time.monotonic)

    def header(self, name: bytes) -> str:
        values = (value for key, value in self.scope["headers"] if key == name)
        return next(values, b"").decode("latin-1")

    async def json(self, most_bytes: int) -> object:
        kind = self.header(b"content-type").partition(";")[0].strip().casefold()
        if kind != "application/json" and not kind.endswith("+json"):
            raise Unreadable("Expected request with `Content-Type: application/json`", 415)
        raw, more = b"", True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            raw += message.get("body", b"")
            more = message.get("more_body", False)
            if len(raw) > most_bytes:
                raise Unreadable("length limit exceeded", 413)
        return bodies.read_json(raw)

    async def start(self, status: int, kind: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        pairs = [("content-type", kind), *headers] if kind else list(headers)
        encoded = [(name.encode(), value.encode()) for name, value in pairs]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})

    async def part(self, data: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(
        self,
        body: object = None,
        *,
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Send a string as plain text, None as nothing, all else as JSON."""
        if isinstance(body, str):
            kind, data = "text/plain; charset=utf-8", body.encode()
        else:
            kind, data = (
                ("application/json", shapes.to_json(body)) if body is not None else ("", b"")
            )
        await self.start(status, kind, [("content-length", str(len(data))), *headers])
        await self.part(data, more=False)


Handler = Callable[[Request], Awaitable[None]]


class App:
    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        template: bodies.Template,
        settings: Settings,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._template = template
        self._settings = settings
        self._limits = settings.limits
        self._metrics = Metrics()
        self._running = 0
        self._validation = ThreadPoolExecutor(1, thread_name_prefix="validation")
        self._locked: dict[tuple[str, str], Handler] = {
            ("POST", "/"): self._compatible,
            ("POST", "/generate"): self._generate,
            ("POST", "/generate_stream"): self._generate_stream,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/v1/load_lora_adapter"): self._load,
            ("POST", "/v1/unload_lora_adapter"): self._unload,
        }
        self._open: dict[tuple[str, str], Handler] = {
            ("POST", "/chat_tokenize"): self._chat_tokenize,
            ("GET", "/"): self._health,
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("GET", "/info"): self._info,
            ("GET", "/v1/models"): self._models,
            ("GET", "/metrics"): self._metrics_text,
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        way = (scope["method"], scope["path"])
        handler = self._locked.get(way) or self._open.get(way)
        if handler is None:
            paths = {path for _, path in (*self._locked, *self._open)}
            await request.answer(status=405 if scope["path"] in paths else 404)
        elif way in self._locked and not self._has_key(request):
            await request.answer(status=401)
        else:
            await self._handle(handler, request)

    def _has_key(self, request: Request) -> bool:
        scheme, _, key = request.header(b"authorization").partition(" ")
        expected = self._settings.api_key
        return not expected or (
            scheme.casefold() == "bearer" and hmac.compare_digest(key.encode(), expected.encode())
        )

    async def _handle(self, handler: Handler, request: Request) -> None:
        try:
            await handler(request)
        except Unreadable as error:
            await request.answer(str(error), status=error.status)
        except Refused as error:
            self._metrics.failures[error.error_type] += 1
            await request.answer(error.body(), status=error.status)
        except Gone:
            self._metrics.failures["cancelled"] += 1

    # --- Generating ---------------------------------------------------------------------------
    async def _compatible(self, request: Request) -> None:
        asked = bodies.read_generate(await self._body(request))
        if asked.stream:
            await self._stream_generate(request, asked)
        else:
            await self._answer_generate(request, asked, as_list=True)

    async def _generate(self, request: Request) -> None:
        asked = bodies.read_generate(await self._body(request), stream=False)
        await self._answer_generate(request, asked, as_list=False)

    async def _generate_stream(self, request: Request) -> None:
        asked = bodies.read_generate(await self._body(request), stream=True)
        await self._stream_generate(request, asked)

    async def _answer_generate(self, request: Request, asked: Asked, *, as_list: bool) -> None:
        [generation], [tokens] = await self._all(request, asked, self._adapter(asked))
        answer = shapes.generate_response(asked, generation, tokens)
        await request.answer(
            [answer] if as_list else answer, headers=self._times(request, generation)
        )

    async def _stream_generate(self, request: Request, asked: Asked) -> None:
        frames = self._generate_frames(asked, self._adapter(asked))
        await self._send_stream(request, frames, lambda error: [shapes.event(error.body())])

    async def _generate_frames(self, asked: Asked, adapter: str) -> AsyncGenerator[bytes, None]:
        tokens: list[Token] = []
        async with aclosing(self._tokens(asked, adapter)) as parts:
            async for generation, _, part in parts:
                if part is None:
                    yield shapes.KEEP_ALIVE
                    continue
                tokens.append(part)
                body = shapes.stream_response(len(tokens), part)
                if generation.finished:
                    body = shapes.with_end(body, asked, generation, tokens)
                yield shapes.event(body)

    async def _chat(self, request: Request) -> None:
        asked = bodies.read_chat(await self._body(request), self._template)
        adapter, model = self._adapter(asked), self._model_name(asked)
        if asked.stream:
            frames = self._chat_frames(asked, adapter, model)
            await self._send_stream(request, frames, _chat_failure)
            return
        [generation], [tokens] = await self._all(request, asked, adapter)
        answer = shapes.chat_completion(asked, model, generation, tokens)
        await request.answer(answer, headers=self._times(request, generation))

    async def _chat_frames(
        self, asked: Asked, adapter: str, model: str
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._tokens(asked, adapter)) as parts:
            async for generation, _, part in parts:
                if part is None:
                    yield shapes.KEEP_ALIVE
                    continue
                reason = shapes.reason_of(generation) if generation.finished else None
                yield shapes.event(shapes.chat_chunk(asked, model, part, reason))
        if asked.usage:
            yield shapes.event(shapes.usage_chunk(model, generation))
        yield shapes.DONE

    async def _completions(self, request: Request) -> None:
        asked = bodies.read_completion(await self._body(request))
        adapter, model = self._adapter(asked), self._model_name(asked)
        if asked.stream:
            frames = self._completion_frames(asked, adapter, model)
            await self._send_stream(request, frames, _chat_failure)
            return
        generations, answers = await self._all(request, asked, adapter)
        answer = shapes.completion(model, generations, answers)
        await request.answer(answer, headers=self._times(request, *generations))

    async def _completion_frames(
        self, asked: Asked, adapter: str, model: str
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._tokens(asked, adapter)) as parts:
            async for generation, index, part in parts:
                if part is None:
                    yield shapes.KEEP_ALIVE
                    continue
                chunk = shapes.completion_chunk(model, index, part)
                if generation.finished:
                    chunk = shapes.completion_end(chunk, generation)
                yield shapes.event(chunk)
        yield shapes.DONE

    # --- From a request to its tokens ---------------------------------------------------------
    def _adapter(self, asked: Asked) -> str:
        return bodies.resolve(
            asked.model,
            self._model.loaded(),
            self._settings.model_id,
            fall_back=self._settings.silent_fallback,
        )

    def _model_name(self, asked: Asked) -> str:
        """Say in the answer which model was asked, as TGI does: with the client's own word."""
        is_base = asked.model in bodies.BASE_NAMES
        return self._settings.model_id if is_base else asked.model

    async def _all(
        self, request: Request, asked: Asked, adapter: str
    ) -> tuple[list[Generation], list[list[Token]]]:
        """Wait for the whole answer to each prompt; given up when the client goes."""
        async with _while_connected(request), aclosing(self._tokens(asked, adapter)) as parts:
            answers: list[list[Token]] = [[] for _ in asked.prompts]
            generations: dict[int, Generation] = {}
            async for generation, index, part in parts:
                generations[index] = generation
                if part is not None:
                    answers[index].append(part)
        return [generations[index] for index in range(len(answers))], answers

    async def _tokens(
        self, asked: Asked, adapter: str
    ) -> AsyncGenerator[tuple[Generation, int, Token | None], None]:
        """Yield each token of each prompt as it comes: generation, prompt number, token.

        None stands for a silence. Raises Refused. Leaving early cancels what runs.
        """
        self._metrics.requests += 1
        with self._places(len(asked.prompts)):
            validated = await self._validated(asked, adapter)
            generations = [Generation(wanted, asked.stream) for wanted in validated]
            try:
                for generation in generations:
                    self._submit(generation)
                async with aclosing(_merged(generations)) as merged:
                    async for index, part in merged:
                        yield generations[index], index, part
            except GenerationFailed as error:
                raise Refused(
                    f"Request failed during generation: {error}", "generation", 424
                ) from error
            finally:
                for generation in generations:
                    generation.cancelled.set()
            for generation in generations:
                self._record(generation)

    @contextmanager
    def _places(self, count: int) -> Iterator[None]:
        """Hold places among the concurrent requests; nobody waits for one."""
        if count > self._limits.max_client_batch_size:
            raise Refused(
                f"batch size {count} is larger than {self._limits.max_client_batch_size}", "batch"
            )
        if self._running + count > self._limits.max_concurrent_requests:
            raise Refused("Model is overloaded", "overloaded", 429)
        self._running += count
        try:
            yield
        finally:
            self._running -= count

    async def _validated(self, asked: Asked, adapter: str) -> list[Wanted]:
        def encode(text: str) -> list[int]:
            return self._tokenizer.encode(text, add_special_tokens=asked.with_special_tokens).ids

        def validate() -> list[Wanted]:
            return [
                bodies.validate(asked, prompt, encode, adapter, self._limits)
                for prompt in asked.prompts
            ]

        return await self._in_thread(validate)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._validation, function)

    def _submit(self, generation: Generation) -> None:
        if not self._model.is_alive:
            raise Refused(
                "Request failed during generation: the model has stopped", "generation", 424
            )
        self._model.submit(generation)

    def _record(self, generation: Generation) -> None:
        now, wanted = time.monotonic(), generation.wanted
        assert generation.finished is not None
        generated = generation.finished.generated_tokens
        inference_s = now - generation.started_at
        self._metrics.successes += 1
        self._metrics.observe(
            duration=now - generation.created_at,
            queue_duration=generation.started_at - generation.created_at,
            inference_duration=inference_s,
            mean_time_per_token_duration=inference_s / generated,
            generated_tokens=generated,
            input_length=len(wanted.prompt_ids),
            max_new_tokens=wanted.max_new_tokens,
        )

    def _times(self, request: Request, *generations: Generation) -> list[tuple[str, str]]:
        """Return TGI's headers about an answer, in whole milliseconds and, for one, seconds."""
        now = time.monotonic()
        started = min(generation.started_at for generation in generations)
        created = min(generation.created_at for generation in generations)
        usage = shapes.usage(generations)
        spans_ms = {
            "x-total-time": now - request.started_at,
            "x-validation-time": created - request.started_at,
            "x-queue-time": started - created,
            "x-inference-time": now - started,
            "x-time-per-token": (now - started) / max(usage["completion_tokens"], 1),
        }
        characters = sum(len(generation.wanted.prompt) for generation in generations)
        return [
            ("x-compute-type", self._settings.compute_type),
            ("x-compute-time", f"{now - request.started_at:.6f}"),
            ("x-compute-characters", str(characters)),
            *((name, str(round(span * 1000))) for name, span in spans_ms.items()),
            ("x-prompt-tokens", str(usage["prompt_tokens"])),
            ("x-generated-tokens", str(usage["completion_tokens"])),
        ]

    async def _send_stream(
        self,
        request: Request,
        frames: AsyncGenerator[bytes, None],
        describe: Callable[[Refused], list[bytes]],
    ) -> None:
        """Send frames as they come. After the head an error can only be one more frame."""
        headers = [
            ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"),
            ("x-compute-type", self._settings.compute_type),
        ]
        async with _while_connected(request), aclosing(frames):
            await request.start(200, "text/event-stream", headers)
            try:
                async for frame in frames:
                    await request.part(frame)
            except Refused as error:
                self._metrics.failures[error.error_type] += 1
                for frame in describe(error):
                    await request.part(frame)
            await request.part(b"", more=False)

    # --- Adapters -----------------------------------------------------------------------------
    async def _load(self, request: Request) -> None:
        fields = bodies.Fields(await self._body(request))
        name, folder = fields.required("lora_name"), Path(fields.required("lora_path"))
        self._check_may_load()
        if not is_adapter_name(name) or name == self._settings.model_id:
            raise Refused(f"“{name}” cannot be an adapter's name.", "adapter_refused", 400)
        try:
            await asyncio.to_thread(self._model.load, name, folder)
        except CannotLoad as error:
            raise Refused(str(error), "adapter_refused", 400) from error
        await request.answer(f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: Request) -> None:
        name = bodies.Fields(await self._body(request)).required("lora_name")
        self._check_may_load()
        if not await asyncio.to_thread(self._model.unload, name):
            raise bodies.AdapterUnknown(name)
        await request.answer(f"Success: LoRA adapter '{name}' removed successfully.")

    def _check_may_load(self) -> None:
        if not self._settings.may_load:
            raise Refused(
                "Without a key, adapters are loaded over HTTP only where the server listens on this"
                " machine alone; start it with a key.",
                "adapter_refused",
                403,
            )

    # --- About the server ---------------------------------------------------------------------
    async def _tokenize(self, request: Request) -> None:
        asked = bodies.read_generate(await self._body(request), stream=False)
        await request.answer(await self._tokens_of(asked.prompts[0], True))

    async def _chat_tokenize(self, request: Request) -> None:
        text = bodies.render(bodies.Fields(await self._body(request)), self._template)
        tokens = await self._tokens_of(text, False)
        await request.answer({"tokenize_response": tokens, "templated_text": text})

    async def _tokens_of(self, text: str, with_special_tokens: bool) -> list[Any]:
        encoding = await self._in_thread(
            lambda: self._tokenizer.encode(text, add_special_tokens=with_special_tokens)
        )
        return shapes.simple_tokens(text, encoding.ids, encoding.offsets)

    async def _health(self, request: Request) -> None:
        if self._model.is_alive and (self._model.healthy or await self._works_again()):
            await request.answer()
        else:
            body = {"error": "unhealthy", "error_type": "healthcheck"}
            await request.answer(body, status=503)

    async def _works_again(self) -> bool:
        """Ask a model that failed for one token."""
        wanted = Wanted("", tuple(self._tokenizer.encode("Hello").ids) or (0,), max_new_tokens=1)
        generation = Generation(wanted)
        self._model.submit(generation)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                async for _ in generation.tokens():
                    pass
        except (GenerationFailed, TimeoutError):
            return False
        return True

    async def _info(self, request: Request) -> None:
        await request.answer(shapes.info(self._settings.model_id, self._limits))

    async def _models(self, request: Request) -> None:
        loaded = [(name, str(folder)) for name, folder in self._model.loaded().items()]
        await request.answer(shapes.models(self._settings.model_id, loaded))

    async def _metrics_text(self, request: Request) -> None:
        text = self._metrics.text(
            queue_size=self._model.queue_size, batch_size=self._model.batch_size
        )
        await request.answer(text)

    async def _body(self, request: Request) -> object:
        return await request.json(self._limits.payload_limit)


def is_adapter_name(name: str) -> bool:
    """Say whether TGI's start line could carry the name, too."""
    return name not in bodies.BASE_NAMES and not set("=@,") & set(name) and name.isprintable()


def _chat_failure(error: Refused) -> list[bytes]:
    return [shapes.event(shapes.chat_error(str(error))), shapes.DONE]


@asynccontextmanager
async def _while_connected(request: Request) -> AsyncGenerator[None, None]:
    """Cancel what runs inside when the client goes away; ends quietly then."""
    task, gone = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        assert task is not None
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError as error:
        if not gone or task is None:
            raise
        task.uncancel()
        raise Gone from error
    finally:
        watcher.cancel()


async def _merged(
    generations: Sequence[Generation],
) -> AsyncGenerator[tuple[int, Token | None], None]:
    """Yield the tokens of several generations in the order in which they come."""
    if len(generations) == 1:
        async with aclosing(generations[0].tokens(KEEP_ALIVE_S)) as tokens:
            async for token in tokens:
                yield 0, token
        return
    arrived: asyncio.Queue[tuple[int, Token | None] | BaseException | None] = asyncio.Queue()

    async def read(index: int, generation: Generation) -> None:
        try:
            async for token in generation.tokens(KEEP_ALIVE_S):
                arrived.put_nowait((index, token))
        except GenerationFailed as error:
            arrived.put_nowait(error)
        else:
            arrived.put_nowait(None)

    readers = [asyncio.create_task(read(i, g)) for i, g in enumerate(generations)]
    try:
        left = len(generations)
        while left:
            item = await arrived.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for reader in readers:
            reader.cancel()
