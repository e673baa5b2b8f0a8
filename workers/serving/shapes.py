"""Answers in TGI's shapes (docs/openapi.json of text-generation-inference 3.3). No torch."""

import json
import math
import time
from collections.abc import Sequence
from typing import Any

from workers.serving.bodies import Asked, Json
from workers.serving.generation import Finished, Generation, Limits, Token

VERSION = "3.3.7"  # of the protocol
FINGERPRINT = f"{VERSION}-tacit"
ROUTER = "tacit-model-server"
OPENAI_REASONS = {"eos_token": "stop"}  # the others keep TGI's names

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b":\n\n"


def event(body: Json) -> bytes:
    # One space after the colon: huggingface_hub knows the end of a stream by "data: [DONE]".
    return b"data: " + to_json(body) + b"\n\n"


def to_json(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def token(token: Token) -> Json:
    return {
        "id": token.id,
        "text": token.text,
        # Tokens that sampling ruled out have no finite value.
        "logprob": token.logprob if math.isfinite(token.logprob) else None,
        "special": token.special,
    }


def text_of(tokens: Sequence[Token]) -> str:
    return "".join(token.text for token in tokens if not token.special)


# --- TGI's own dialect ------------------------------------------------------------------------
def generated_text(asked: Asked, generation: Generation, tokens: Sequence[Token]) -> str:
    return (generation.wanted.prompt if asked.full_text else "") + text_of(tokens)


def generate_response(asked: Asked, generation: Generation, tokens: Sequence[Token]) -> Json:
    finished = _finished(generation)
    answer: Json = {"generated_text": generated_text(asked, generation, tokens)}
    if asked.details:
        answer["details"] = {
            "finish_reason": finished.reason,
            "generated_tokens": finished.generated_tokens,
            "seed": finished.seed,
            "prefill": [
                {"id": id_, "text": text, "logprob": logprob}
                for id_, text, logprob in finished.prefill
            ],
            "tokens": [token(part) for part in tokens],
        }
        if generation.wanted.top_n_tokens:
            answer["details"]["top_tokens"] = [[token(top) for top in part.top] for part in tokens]
    return answer


def stream_response(index: int, part: Token) -> Json:
    """Describe one token of a stream; `index` counts from 1."""
    body: Json = {"index": index, "token": token(part)}
    if part.top:
        body["top_tokens"] = [token(top) for top in part.top]
    return {**body, "generated_text": None, "details": None}


def with_end(body: Json, asked: Asked, generation: Generation, tokens: Sequence[Token]) -> Json:
    """Complete the last token of a stream."""
    finished = _finished(generation)
    details = {
        "finish_reason": finished.reason,
        "generated_tokens": finished.generated_tokens,
        "seed": finished.seed,
        "input_length": len(generation.wanted.prompt_ids),
    }
    return {
        **body,
        "generated_text": generated_text(asked, generation, tokens),
        "details": details if asked.details else None,
    }


# --- OpenAI's dialect, as TGI speaks it --------------------------------------------------------
def _head(kind: str, model: str) -> Json:
    return {
        "object": kind,
        "id": "",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def reason_of(generation: Generation) -> str:
    reason = _finished(generation).reason
    return OPENAI_REASONS.get(reason, reason)


def usage(generations: Sequence[Generation]) -> Json:
    prompt = sum(len(generation.wanted.prompt_ids) for generation in generations)
    completion = sum(_finished(generation).generated_tokens for generation in generations)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def chat_completion(
    asked: Asked, model: str, generation: Generation, tokens: Sequence[Token]
) -> Json:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text_of(tokens)},
        "logprobs": _logprobs(tokens) if asked.logprobs else None,
        "finish_reason": reason_of(generation),
    }
    return {
        **_head("chat.completion", model),
        "choices": [choice],
        "usage": usage([generation]),
    }


def chat_chunk(asked: Asked, model: str, part: Token, reason: str | None) -> Json:
    choice = {
        "index": 0,
        "delta": {"role": "assistant", "content": "" if part.special else part.text},
        "logprobs": _logprobs([part]) if asked.logprobs else None,
        "finish_reason": reason,
    }
    return {**_head("chat.completion.chunk", model), "choices": [choice], "usage": None}


def usage_chunk(model: str, generation: Generation) -> Json:
    head = _head("chat.completion.chunk", model)
    return {**head, "choices": [], "usage": usage([generation])}


def _logprobs(tokens: Sequence[Token]) -> Json:
    return {
        "content": [
            {
                "token": part.text,
                "logprob": part.logprob,
                "top_logprobs": [
                    {"token": top.text, "logprob": max(top.logprob, -9999.0)} for top in part.top
                ],
            }
            for part in tokens
        ]
    }


def completion(
    model: str, generations: Sequence[Generation], answers: Sequence[Sequence[Token]]
) -> Json:
    choices = [
        {
            "index": index,
            "text": text_of(tokens),
            "logprobs": None,
            "finish_reason": reason_of(generation),
        }
        for index, (generation, tokens) in enumerate(zip(generations, answers, strict=True))
    ]
    return {**_head("text_completion", model), "choices": choices, "usage": usage(generations)}


def completion_chunk(model: str, index: int, part: Token) -> Json:
    text = "" if part.special else part.text
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": ""}
    return {**_head("text_completion", model), "choices": [choice]}


def completion_end(chunk: Json, generation: Generation) -> Json:
    """Complete the last chunk of one prompt; TGI uses its own word for the reason here."""
    choice = {**chunk["choices"][0], "finish_reason": _finished(generation).reason}
    return {**chunk, "choices": [choice], "usage": usage([generation])}


def chat_error(message: str) -> Json:
    """An error inside a stream of chat; TGI gives each the same code."""
    return {"error": {"message": message, "http_status_code": 422}}


# --- About the server -------------------------------------------------------------------------
def info(model_id: str, limits: Limits) -> Json:
    return {
        "model_id": model_id,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": limits.max_concurrent_requests,
        "max_best_of": 1,
        "max_stop_sequences": limits.max_stop_sequences,
        "max_input_tokens": limits.max_input_tokens,
        "max_total_tokens": limits.max_total_tokens,
        "validation_workers": 1,
        "max_client_batch_size": limits.max_client_batch_size,
        "router": ROUTER,
        "version": VERSION,
        "sha": None,
        "docker_label": None,
    }


def models(model_id: str, adapters: Sequence[tuple[str, str]]) -> Json:
    """List the base model and, as vLLM does, its adapters (name, folder).

    TGI sends such a list while its description promises one model, so the list is also that one.
    """
    base = {"id": model_id, "object": "model", "created": 0, "owned_by": model_id}
    served = [{**base, "id": name, "root": folder, "parent": model_id} for name, folder in adapters]
    return {**base, "object": "list", "data": [base, *served]}


def simple_tokens(text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[Any]:
    return [
        {"id": id_, "text": text[start:stop], "start": start, "stop": stop}
        for id_, (start, stop) in zip(ids, spans, strict=True)
    ]


def _finished(generation: Generation) -> Finished:
    assert generation.finished is not None
    return generation.finished
