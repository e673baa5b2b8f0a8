"""The thread that owns the model: requests join and leave a running batch at every token.

B rows, T cached positions, V vocabulary. Rows are padded on the left, so that all end at the same
position. One batch serves all adapters that can share one (see adapters.py); others have their own
and take turns.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from workers.serving.adapters import Adapter, Adapters
from workers.serving.detokenizing import Detokenizer
from workers.serving.generation import (
    Failed,
    Finished,
    FinishReason,
    Generation,
    Last,
    Limits,
    Token,
)
from workers.serving.sampling import Sampler

logger = logging.getLogger(__name__)
T = TypeVar("T")
Prefill = tuple[tuple[int, str, float | None], ...]


class Row:
    """One generation in a batch."""

    def __init__(
        self,
        generation: Generation,
        adapter: Adapter | None,
        vocabulary: "Vocabulary",
        device: torch.device,
    ) -> None:
        wanted = generation.wanted
        self.generation = generation
        self.adapter = adapter
        self.sampler = Sampler(wanted.sampling, wanted.prompt_ids, device)
        self.prefill: Prefill = ()
        self._vocabulary = vocabulary
        self._detokenizer = Detokenizer(vocabulary.decode, list(wanted.prompt_ids))
        self._generated = 0
        self._tail = ""
        self._tail_length = max((len(stop) for stop in wanted.stop), default=0)

    def advance(self, token_id: int, logprob: float, top: Sequence[tuple[int, float]]) -> bool:
        """Take the next token and send it on; False when it was the last one."""
        vocabulary = self._vocabulary
        self.sampler.saw(token_id)
        self._generated += 1
        special = token_id in vocabulary.special
        text = vocabulary.text(token_id) if special else self._detokenizer.add(token_id)
        others = tuple(
            Token(id_, vocabulary.text(id_), score, id_ in vocabulary.special) for id_, score in top
        )
        token = Token(token_id, text, logprob, special, others)
        reason = self._reason(token_id, "" if special else text)
        if reason is None:
            self.generation.emit(token)
        else:
            end = Finished(reason, self._generated, self.sampler.seed, self.prefill)
            self.generation.emit(Last(token, end))
        return reason is None

    def _reason(self, token_id: int, text: str) -> FinishReason | None:
        if token_id in self._vocabulary.ends:
            return "eos_token"
        wanted = self.generation.wanted
        # A stop string may begin in text that was sent before.
        recent = self._tail + text
        self._tail = recent[-self._tail_length :] if self._tail_length else ""
        if any(stop in recent for stop in wanted.stop):
            return "stop_sequence"
        return "length" if self._generated >= wanted.max_new_tokens else None


class Vocabulary:
    """The tokenizer as the engine needs it, and the tokens that end an answer."""

    def __init__(self, tokenizer: Tokenizer, ends: frozenset[int], special: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.ends = ends
        self.special = special

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def text(self, token_id: int) -> str:
        return self.decode([token_id])


class Batch:
    """Rows that are computed together. `mask`: (B, T), 1 where a row has a token."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.rows: list[Row] = []
        self.cache = DynamicCache()
        self.mask = torch.zeros((0, 0), dtype=torch.long)
        self.next_ids = torch.zeros((0,), dtype=torch.long)

    def keep(self, wanted: Sequence[bool]) -> None:
        """Drop the other rows, and the positions that only they had."""
        if all(wanted):
            return
        self.rows = [row for row, keeps in zip(self.rows, wanted, strict=True) if keeps]
        kept = torch.tensor(
            [i for i, keeps in enumerate(wanted) if keeps],
            dtype=torch.long,
            device=self.mask.device,
        )
        if not self.rows:
            self.clear()
            return
        self.mask, self.next_ids = self.mask[kept], self.next_ids[kept]
        first = int(self.mask.any(dim=0).to(torch.long).argmax())
        self.mask = self.mask[:, first:]
        for layer in self._layers():
            layer.keys = layer.keys[kept, :, first:]
            layer.values = layer.values[kept, :, first:]

    def _layers(self) -> list[Any]:
        """Return the cached keys and values, each (B, heads, T, D), of every layer.

        A cache made without a configuration keeps all positions, also for sliding windows.
        """
        return self.cache.layers

    def clear(self) -> None:
        self.rows, self.cache = [], DynamicCache()
        self.mask, self.next_ids = self.mask[:0, :0], self.next_ids[:0]

    def join(self, other: "Batch") -> None:
        """Take another batch's rows in."""
        if not self.rows:
            self.rows, self.cache = other.rows, other.cache
            self.mask, self.next_ids = other.mask, other.next_ids
            return
        length = max(self.mask.shape[1], other.mask.shape[1])
        self.rows = self.rows + other.rows
        self.mask = torch.cat([_padded(self.mask, length, 1), _padded(other.mask, length, 1)])
        self.next_ids = torch.cat([self.next_ids, other.next_ids])
        for mine, theirs in zip(self._layers(), other._layers(), strict=True):
            mine.keys = torch.cat([_padded(mine.keys, length, 2), _padded(theirs.keys, length, 2)])
            mine.values = torch.cat(
                [_padded(mine.values, length, 2), _padded(theirs.values, length, 2)]
            )


def _padded(tensor: Tensor, length: int, dim: int) -> Tensor:
    """Put zeros before the positions of `dim` until there are `length`."""
    shape = list(tensor.shape)
    shape[dim] = length - shape[dim]
    return tensor if shape[dim] == 0 else torch.cat([tensor.new_zeros(shape), tensor], dim=dim)


class Engine:
    """Runs generations on one model. Every method but those with _ may be called from any thread."""

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary, limits: Limits) -> None:
        self._adapters = Adapters(model)
        self.healthy = True
        self.batch_size = 0
        self._model = model
        self._vocabulary = vocabulary
        self._limits = limits
        self._arrived: queue.SimpleQueue[Generation | Callable[[], None] | None] = (
            queue.SimpleQueue()
        )
        self._waiting: list[Row] = []
        self._batches: dict[str, Batch] = {}
        self._leaving: list[Adapter] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Leave what is under way and end the thread."""
        self._arrived.put(None)
        self._thread.join(timeout=30)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def queue_size(self) -> int:
        return self._arrived.qsize() + len(self._waiting)

    def submit(self, generation: Generation) -> None:
        self._arrived.put(generation)

    def _call(self, function: Callable[[], T]) -> "Future[T]":
        """Run a function in the model's thread, between two tokens."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # it is the caller's, who waits for it
                future.set_exception(error)

        self._arrived.put(run)
        return future

    def loaded(self) -> dict[str, Path]:
        """Return the folder of each adapter by its name."""
        return {adapter.name: adapter.folder for adapter in self._adapters.loaded()}

    def load(self, name: str, folder: Path) -> None:
        """Serve an adapter from now on; waits for it. Raises CannotLoad."""
        config, weights = Adapters.read(folder)
        self._call(lambda: self._adapters.add(name, folder, config, weights)).result()

    def unload(self, name: str) -> bool:
        """Answer no new request with this adapter; its memory is freed after the running ones.

        False: there was none.
        """
        return self._call(lambda: self._forget(name)).result()

    def _forget(self, name: str) -> bool:
        adapter = self._adapters.forget(name)
        if adapter is not None:
            self._leaving.append(adapter)
        return adapter is not None

    @torch.no_grad()
    def _run(self) -> None:
        try:
            while not self._stopping:
                self._receive()
                self._turns()
        finally:
            self._fail([*self._waiting, *self._running()], "the server is stopping")

    def _turns(self) -> None:
        """Give each batch one turn."""
        self._free_adapters()
        for group in {row.adapter.group if row.adapter else "" for row in self._waiting}:
            self._batches.setdefault(group, Batch(group))
        for batch in list(self._batches.values()):
            self._turn(batch)
            if not batch.rows:
                del self._batches[batch.group]
        self.batch_size = sum(len(batch.rows) for batch in self._batches.values())

    def _running(self) -> list[Row]:
        return [row for batch in self._batches.values() for row in batch.rows]

    def _receive(self) -> None:
        """Take in what has arrived; waits while there is nothing to do."""
        idle = not self._batches and not self._waiting
        while idle or not self._arrived.empty():
            item = self._arrived.get()
            idle = False
            if item is None:
                self._stopping = True
            elif isinstance(item, Generation):
                self._accept(item)
            else:
                item()

    def _accept(self, generation: Generation) -> None:
        name = generation.wanted.adapter
        adapter = self._adapters.get(name) if name else None
        if name and adapter is None:
            generation.emit(Failed(f"The adapter “{name}” has been unloaded."))
            return
        device = self._model.device
        self._waiting.append(Row(generation, adapter, self._vocabulary, device))

    def _free_adapters(self) -> None:
        used = {row.adapter for row in [*self._waiting, *self._running()]}
        for adapter in [a for a in self._leaving if a not in used]:
            self._leaving.remove(adapter)
            self._adapters.free(adapter)

    def _turn(self, batch: Batch) -> None:
        """Advance a batch by one token, and compute the prompts of rows that join it."""
        arriving = self._admitted(batch)
        if not self._safely(batch.rows, lambda: self._decode(batch)):
            batch.clear()
        if arriving:
            self._safely(arriving, lambda: batch.join(self._prefilled(batch.group, arriving)))

    def _safely(self, rows: list[Row], compute: Callable[[], None]) -> bool:
        """Compute something for these rows; a fault is the end of them, and of no other."""
        try:
            compute()
        except Exception as error:  # whatever it was, the clients must not wait for ever
            logger.exception("the model failed")
            self.healthy = False
            self._fail(rows, str(error) or type(error).__name__)
            return False
        if rows:
            self.healthy = True
        return True

    def _admitted(self, batch: Batch) -> list[Row]:
        """Take waiting rows of this batch's group, first come first, as many as fit."""
        self._waiting = [r for r in self._waiting if not r.generation.cancelled.is_set()]
        admitted: list[Row] = []
        tokens = 0
        for row in self._waiting:
            if (row.adapter.group if row.adapter else "") != batch.group:
                continue
            tokens += len(row.generation.wanted.prompt_ids)
            is_full = len(batch.rows) + len(admitted) >= self._limits.max_batch_size
            if is_full or (admitted and tokens > self._limits.max_batch_prefill_tokens):
                break
            admitted.append(row)
        self._waiting = [row for row in self._waiting if row not in admitted]
        return admitted

    def _prefilled(self, group: str, rows: list[Row]) -> Batch:
        """Compute the prompts and the first token of each row; what has ended already is left out."""
        now = time.monotonic()
        for row in rows:
            row.generation.started_at = now
        batch = Batch(group)
        plain = [row for row in rows if self._adapters.prefix(row.adapter) is None]
        for part in [plain, *([row] for row in rows if row not in plain)]:
            if part:
                batch.join(self._computed(group, part))
        return batch

    def _computed(self, group: str, rows: list[Row]) -> Batch:
        batch = Batch(group)
        batch.rows = rows
        device = self._model.device
        length = max(len(row.generation.wanted.prompt_ids) for row in rows)
        ids = torch.zeros((len(rows), length), dtype=torch.long, device=device)
        batch.mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            prompt = torch.tensor(row.generation.wanted.prompt_ids, device=device)
            ids[i, length - len(prompt) :] = prompt
            batch.mask[i, length - len(prompt) :] = 1
        inputs: dict[str, Any] = {"input_ids": ids}
        prefix = self._adapters.prefix(rows[0].adapter)
        if isinstance(prefix, Tensor):
            embedded = self._model.get_input_embeddings()(ids)
            inputs = {"inputs_embeds": torch.cat([prefix.to(embedded.dtype), embedded], dim=1)}
        elif prefix is not None:
            batch.cache = prefix
        whole = prefix if isinstance(prefix, Tensor) else None
        virtual = whole.shape[1] if whole is not None else batch.cache.get_seq_length()
        batch.mask = torch.cat([batch.mask.new_ones((len(rows), virtual)), batch.mask], dim=1)
        positions = (batch.mask.cumsum(dim=1) - 1).clamp(min=0)
        positions = positions[:, -inputs[next(iter(inputs))].shape[1] :]
        with_prefill = any(row.generation.wanted.prefill_details for row in rows)
        logits = self._forward(batch, inputs, positions, keep=length if with_prefill else 1)
        if with_prefill:
            for i, row in enumerate(rows):
                row.prefill = self._prefill_details(row, logits[i])
        self._advance(batch, logits[:, -1])
        return batch

    def _decode(self, batch: Batch) -> None:
        batch.keep([not row.generation.cancelled.is_set() for row in batch.rows])
        if not batch.rows:
            return
        positions = batch.mask.sum(dim=1, keepdim=True)
        batch.mask = torch.cat([batch.mask, batch.mask.new_ones((len(batch.rows), 1))], dim=1)
        logits = self._forward(batch, {"input_ids": batch.next_ids[:, None]}, positions, keep=1)
        self._advance(batch, logits[:, -1])

    def _forward(
        self, batch: Batch, inputs: dict[str, Tensor], positions: Tensor, *, keep: int
    ) -> Tensor:
        """Run the model over further positions; returns the last `keep` logits, (B, keep, V)."""
        with self._adapters.applied(batch.group, [row.adapter for row in batch.rows]):
            output = self._model(
                **inputs,
                attention_mask=batch.mask,
                position_ids=positions,
                past_key_values=batch.cache,
                use_cache=True,
                logits_to_keep=keep,
            )
        return output.logits.float()

    def _advance(self, batch: Batch, logits: Tensor) -> None:
        """Choose each row's next token and drop the rows for which it was the last. logits: (B, V)."""
        scores = torch.log_softmax(logits, dim=-1)
        for i, row in enumerate(batch.rows):
            if not row.sampler.sampling.is_plain:
                scores[i] = row.sampler.scores(logits[i])
        best = scores.argmax(dim=-1).tolist()
        chosen = [
            best[i] if row.sampler.sampling.is_plain else row.sampler.choose(scores[i])
            for i, row in enumerate(batch.rows)
        ]
        batch.next_ids = torch.tensor(chosen, device=logits.device)
        logprobs = scores.gather(1, batch.next_ids[:, None])[:, 0].tolist()
        batch.keep(
            [
                row.advance(chosen[i], logprobs[i], _top(scores[i], row))
                for i, row in enumerate(batch.rows)
            ]
        )

    def _prefill_details(self, row: Row, logits: Tensor) -> Prefill:
        """Return each prompt token with its log-probability; the first has none. logits: (T, V)."""
        ids = row.generation.wanted.prompt_ids
        if not row.generation.wanted.prefill_details:
            return ()
        scores = torch.log_softmax(logits[-len(ids) :], dim=-1)
        following = torch.tensor(ids[1:], device=logits.device)[:, None]
        logprobs = scores[:-1].gather(1, following)[:, 0].tolist()
        texts = map(self._vocabulary.text, ids)
        return tuple(zip(ids, texts, [None, *logprobs], strict=True))

    def _fail(self, rows: Sequence[Row], message: str) -> None:
        for row in rows:
            row.generation.emit(Failed(message))


def _top(scores: Tensor, row: Row) -> list[tuple[int, float]]:
    count = row.generation.wanted.top_n_tokens
    if not count:
        return []
    best = scores.topk(count)
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
