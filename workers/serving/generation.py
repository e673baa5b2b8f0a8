"""What travels between the HTTP side and the thread that owns the model. No torch."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["length", "eos_token", "stop_sequence"]
BASE = ""  # the adapter name of a request to the base model


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server accepts; the names are those of TGI's options."""

    max_total_tokens: int
    max_concurrent_requests: int = 128
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_client_batch_size: int = 4
    payload_limit: int = 2_000_000  # bytes
    max_batch_size: int = 32  # rows
    max_batch_prefill_tokens: int = 4096

    @property
    def max_input_tokens(self) -> int:
        return self.max_total_tokens - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Greedy with the defaults; penalties also apply to greedy."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    seed: int | None = None

    @property
    def is_plain(self) -> bool:
        return (
            not self.do_sample and self.repetition_penalty == 1.0 and self.frequency_penalty == 0.0
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """One generation after validation. `adapter`: a loaded name, or BASE."""

    prompt: str
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    adapter: str = BASE
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    top_n_tokens: int = 0
    prefill_details: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """`text` is what this token adds; empty while a character is incomplete."""

    id: int
    text: str
    logprob: float  # in nats, after penalties and warping
    special: bool
    top: tuple["Token", ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a generation. `prefill`: (id, text, logprob) of the prompt, when asked for."""

    reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: tuple[tuple[int, str, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The model failed; the message is for the client."""

    message: str


@dataclass(frozen=True, slots=True)
class Last:
    """The last token of a generation, and how it ended."""

    token: Token
    finished: Finished


Event = Token | Last | Failed


class CannotLoad(Exception):
    """An adapter cannot be served here; the message says why."""


class GenerationFailed(Exception):
    """The model failed while it was working on a request."""


@dataclass(eq=False)
class Generation:
    """One request on its way through the model; read its events with `async for`.

    Lives on the event loop that made it; `emit` and `cancelled` are for the model's thread. Without
    `stream` all tokens come at the end, which spares the loop a turn a token.
    """

    wanted: Wanted
    stream: bool = True
    created_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    cancelled: threading.Event = field(default_factory=threading.Event)
    finished: Finished | None = None
    _events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    _held: list[Event] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def emit(self, event: Event) -> None:
        """Hand an event over from another thread; nothing happens once the loop is closed."""
        self._held.append(event)
        is_due = self.stream or not isinstance(event, Token)
        if is_due and not self._loop.is_closed():
            held, self._held = self._held, []
            self._loop.call_soon_threadsafe(self._deliver, held)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            self._events.put_nowait(event)

    async def tokens(self, keep_alive_s: float | None = None) -> AsyncGenerator[Token | None, None]:
        """Yield tokens as they come, None after each silence of `keep_alive_s`.

        `finished` is set before the last one. Raises GenerationFailed. Leaving early cancels.
        """
        try:
            while True:
                try:
                    async with asyncio.timeout(keep_alive_s):
                        event = await self._events.get()
                except TimeoutError:
                    yield None
                    continue
                if isinstance(event, Failed):
                    raise GenerationFailed(event.message)
                if isinstance(event, Last):
                    self.finished = event.finished
                    yield event.token
                    return
                yield event
        finally:
            self.cancelled.set()
