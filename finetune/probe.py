"""Prove that a model server really uses an adapter. No Django, no torch.

A 200 proves nothing: TGI answers a name it does not know with the base model, skips tensors it
cannot place, and scales odd ranks wrongly, all without a word. So a server is asked a few chats
greedily, and its log-probabilities (in nats) are held against those that PEFT gave right after
training (finetune/reference.py) and against the base model's.
"""

import json
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2

from finetune.hyperparameters import Server

FILE = "probe.json"  # lies beside the adapter's weights
TOLERANCE = 0.1  # bfloat16 moves log-probabilities by a few hundredths
# Asked where there is no reference.
PLAIN_CHATS = tuple(
    ({"role": "user", "content": question},)
    for question in (
        "Who are you?",
        "What stands in the sources?",
        "When does it begin, and when does it end?",
    )
)
TIMEOUT_S = 120.0  # of one short answer, from a server that has just started

Check = Literal[
    "answered",
    "base",
    "matches_reference",
    "differs_from_base",
    "stop",
    "unknown_refused",
    "chat_ids",
]
Outcome = Literal["passed", "failed", "noted"]


class ProbeError(Exception):
    """The probe could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """A greedy token. `runner_up`: the second best log-probability, which tells a near tie."""

    text: str
    logprob: float
    runner_up: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer. `stopped`: it ended by the stop token, not by the limit."""

    steps: tuple[Step, ...]
    stopped: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One chat, its token ids when rendered for an answer, and both models' greedy answers."""

    messages: tuple[dict[str, str], ...]
    prompt_ids: tuple[int, ...]
    adapter: Answer
    base: Answer


@dataclass(frozen=True, slots=True)
class Reference:
    """What the adapter and its base say by PEFT; `tokens` is the limit of each answer.

    `note`: in what way the base was loaded, where it did not fit.
    """

    samples: tuple[Sample, ...]
    tokens: int
    note: str = ""

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Reference":
        """Read what `write` wrote; raises ProbeError."""
        try:
            data = json.loads((folder / FILE).read_text())
            samples = tuple(_sample(entry) for entry in data["samples"])
            return cls(samples, int(data["tokens"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProbeError(f"The reference in “{folder / FILE}” cannot be read.") from error


def _sample(entry: dict[str, Any]) -> Sample:
    def answer(part: dict[str, Any]) -> Answer:
        return Answer(tuple(Step(**step) for step in part["steps"]), part["stopped"])

    return Sample(
        tuple(entry["messages"]),
        tuple(entry["prompt_ids"]),
        answer(entry["adapter"]),
        answer(entry["base"]),
    )


@dataclass(frozen=True, slots=True)
class Target:
    """A model server. `base_model`: what it calls the model without an adapter."""

    url: str
    kind: Server
    key: str = ""
    base_model: str = "tgi"


@dataclass(frozen=True, slots=True)
class Finding:
    check: Check
    outcome: Outcome
    sentence: str


@dataclass(frozen=True, slots=True)
class Report:
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(finding.outcome != "failed" for finding in self.findings)

    @property
    def reason(self) -> str:
        """The first sentence that speaks against the adapter; "" when it passed."""
        failed = (f.sentence for f in self.findings if f.outcome == "failed")
        return next(failed, "")


def probe(
    target: Target, adapter: str, reference: Reference, *, tolerance: float = TOLERANCE
) -> Report:
    """Ask the server and judge its answers. Raises ProbeError when it cannot be reached."""
    return _judged(target, lambda client: _findings(client, target, adapter, reference, tolerance))


def probe_without_reference(
    target: Target, adapter: str, *, tolerance: float = TOLERANCE
) -> Report:
    """Judge an adapter of which nobody noted what it says by PEFT. Raises ProbeError.

    Shows that the server answers differently with it, not that it uses the whole of it.
    """
    return _judged(target, lambda client: _bare_findings(client, target, adapter, tolerance))


def _judged(target: Target, findings: Callable[[httpx2.Client], Iterator[Finding]]) -> Report:
    with httpx2.Client(
        base_url=target.url.rstrip("/").removesuffix("/v1"),
        headers={"Authorization": f"Bearer {target.key}"} if target.key else {},
        timeout=TIMEOUT_S,
        trust_env=False,
    ) as client:
        try:
            return Report(tuple(findings(client)))
        except httpx2.HTTPError as error:
            raise ProbeError(
                f"The model server at {target.url} does not answer: {error}"
            ) from error


def _bare_findings(
    client: httpx2.Client, target: Target, adapter: str, tolerance: float
) -> Iterator[Finding]:
    answers: dict[str, list[Answer]] = {adapter: [], target.base_model: []}
    for chat in PLAIN_CHATS:
        for name, given in answers.items():
            response = _ask(client, name, chat, 16)
            if problem := _problem(response, name):
                yield Finding("answered", "failed", problem)
                return
            given.append(_answer(response.json()))
    yield Finding("answered", "passed", f"The server answers for “{adapter}”.")
    yield Finding(
        "matches_reference", "noted", "Nobody noted after training what it says: not compared."
    )
    yield _judge_apart(answers[adapter], answers[target.base_model], tolerance)
    yield _judge_unknown(client, target, PLAIN_CHATS[0])


def _findings(
    client: httpx2.Client, target: Target, adapter: str, reference: Reference, tolerance: float
) -> Iterator[Finding]:
    served: list[Answer] = []
    base: list[Answer] = []
    for sample in reference.samples:
        for name, answers in ((adapter, served), (target.base_model, base)):
            response = _ask(client, name, sample.messages, reference.tokens)
            if problem := _problem(response, name):
                yield Finding("answered", "failed", problem)
                return
            answers.append(_answer(response.json()))
    yield Finding("answered", "passed", f"The server answers for “{adapter}”.")
    yield _judge_base(base, reference, tolerance)
    yield _judge_reference(served, reference, tolerance)
    yield _judge_difference(served, base, reference, tolerance)
    yield _judge_stop(served, reference)
    yield _judge_unknown(client, target, reference.samples[0].messages)
    yield _judge_chat_ids(client, target, reference)


def _ask(
    client: httpx2.Client, model: str, messages: Sequence[dict[str, str]], tokens: int
) -> httpx2.Response:
    body = {
        "model": model,
        "messages": list(messages),
        "max_tokens": tokens,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    return client.post("/v1/chat/completions", json=body)


def _problem(response: httpx2.Response, model: str) -> str:
    """Say why a response is not an answer with log-probabilities; "" when it is one."""
    if response.status_code != 200:
        return (
            f"The server refused the model “{model}” with {response.status_code}:"
            f" {response.text[:200]}"
        )
    try:
        content = response.json()["choices"][0]["logprobs"]["content"]
    except (ValueError, LookupError, TypeError):
        content = None
    return "" if content else f"The server gave no log-probabilities for “{model}”."


def _answer(body: dict[str, Any]) -> Answer:
    choice = body["choices"][0]
    steps = []
    for part in choice["logprobs"]["content"]:
        others = sorted((top["logprob"] for top in part["top_logprobs"]), reverse=True)
        runner_up = others[1] if len(others) > 1 else -math.inf
        steps.append(Step(part["token"], part["logprob"], runner_up))
    return Answer(tuple(steps), choice["finish_reason"] in ("stop", "eos_token"))


def distance(measured: Answer, expected: Answer, tolerance: float) -> float:
    """Return the largest difference of log-probabilities; infinite for other tokens.

    Where two tokens were as good as equal, rounding may choose either, and what follows cannot be
    compared any more.
    """
    largest = 0.0
    for mine, theirs in zip(measured.steps, expected.steps, strict=False):
        if _are_other(mine.text, theirs.text):
            close = min(mine.logprob - mine.runner_up, theirs.logprob - theirs.runner_up)
            return largest if close <= tolerance else math.inf
        largest = max(largest, abs(mine.logprob - theirs.logprob))
    return largest


def _are_other(text: str, other: str) -> bool:
    """Compare tokens by their text; servers differ in showing spaces, ends and half characters."""
    text, other = text.strip(), other.strip()
    comparable = text and other and "\ufffd" not in text + other
    return bool(comparable) and text != other


def _largest(answers: Sequence[Answer], expected: Sequence[Answer], tolerance: float) -> float:
    pairs = zip(answers, expected, strict=True)
    return max((distance(answer, other, tolerance) for answer, other in pairs), default=0.0)


def _judge_base(base: list[Answer], reference: Reference, tolerance: float) -> Finding:
    apart = _largest(base, [sample.base for sample in reference.samples], tolerance)
    if apart <= tolerance:
        return Finding(
            "base", "passed", f"The base model is the one of the training ({apart:.3f})."
        )
    return Finding(
        "base",
        "failed",
        "The server's base model answers differently from the one the adapter was trained on"
        f" ({apart:.3f} apart).",
    )


def _judge_reference(served: list[Answer], reference: Reference, tolerance: float) -> Finding:
    apart = _largest(served, [sample.adapter for sample in reference.samples], tolerance)
    if apart <= tolerance:
        return Finding(
            "matches_reference", "passed", f"Its answers are those of the training ({apart:.3f})."
        )
    return Finding(
        "matches_reference",
        "failed",
        f"The answers are not those that the adapter gave after training ({apart:.3f} apart, at"
        f" most {tolerance:.3f} is rounding): it is missing, incomplete or wrongly scaled.",
    )


def _judge_difference(
    served: list[Answer], base: list[Answer], reference: Reference, tolerance: float
) -> Finding:
    samples = reference.samples
    expected = _largest([s.adapter for s in samples], [s.base for s in samples], tolerance)
    if expected <= tolerance:
        sentence = "The adapter changes these answers so little that its use cannot be proved."
        return Finding("differs_from_base", "failed", sentence)
    return _judge_apart(served, base, tolerance)


def _judge_apart(served: list[Answer], base: list[Answer], tolerance: float) -> Finding:
    if _largest(served, base, tolerance) <= tolerance:
        sentence = "The server answers with the base model: it does not use the adapter."
        return Finding("differs_from_base", "failed", sentence)
    return Finding("differs_from_base", "passed", "Its answers differ from the base model's.")


def _judge_stop(served: list[Answer], reference: Reference) -> Finding:
    expected = [sample.adapter.stopped for sample in reference.samples]
    if not any(expected):
        sentence = f"After training no answer ended within {reference.tokens} tokens: not checked."
        return Finding("stop", "noted", sentence)
    if any(answer.stopped for answer, stops in zip(served, expected, strict=True) if stops):
        return Finding("stop", "passed", "Answers end by the stop token.")
    return Finding("stop", "failed", "Answers that ended after training do not end on the server.")


def _judge_unknown(
    client: httpx2.Client, target: Target, messages: Sequence[dict[str, str]]
) -> Finding:
    name = f"no-such-adapter-{secrets.token_hex(4)}"
    response = _ask(client, name, messages, 1)
    if 400 <= response.status_code < 500:
        return Finding("unknown_refused", "passed", "A made-up name is refused.")
    sentence = f"A made-up name is answered with {response.status_code}, not refused."
    if target.kind == "tgi" and response.status_code == 200:
        return Finding("unknown_refused", "noted", f"{sentence} TGI does so for every name.")
    return Finding("unknown_refused", "failed", sentence)


def _judge_chat_ids(client: httpx2.Client, target: Target, reference: Reference) -> Finding:
    for sample in reference.samples:
        ids = _chat_ids(client, target, sample)
        if ids is None:
            return Finding("chat_ids", "noted", "The server does not tell how it renders a chat.")
        if tuple(ids) != sample.prompt_ids:
            sentence = "The server renders a chat to other tokens than the training did."
            return Finding("chat_ids", "failed", sentence)
    return Finding("chat_ids", "passed", "A chat becomes the tokens that the training saw.")


def _chat_ids(client: httpx2.Client, target: Target, sample: Sample) -> list[int] | None:
    path = "/tokenize" if target.kind == "vllm" else "/chat_tokenize"
    body = {"model": target.base_model, "messages": list(sample.messages)}
    response = client.post(path, json=body)
    if response.status_code in (404, 405):
        return None
    if response.status_code != 200:
        return []
    answer = response.json()
    if target.kind == "vllm":
        return list(answer["tokens"])
    return [token["id"] for token in answer["tokenize_response"]]
