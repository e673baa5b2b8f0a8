"""What clients send: read, checked, and turned into generations. Django- and torch-free.

Field names, defaults and rules are TGI's, surprises included (docs/model-server.md lists them).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workers.serving.generation import BASE, Limits, Sampling, Wanted

Json = dict[str, Any]
# What clients write where no model is named: TGI's own word, and huggingface_hub's.
BASE_NAMES = ("", "tgi", "dummy")


class Refused(Exception):
    """An error that TGI describes by an object {error, error_type}."""

    def __init__(self, error: str, error_type: str = "validation", status: int = 422) -> None:
        super().__init__(error)
        self.error_type = error_type
        self.status = status

    def body(self) -> Json:
        return {"error": str(self), "error_type": self.error_type}


class Unreadable(Exception):
    """A body of the wrong shape: TGI's framework answers with plain text."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


class AdapterUnknown(Refused):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"The adapter “{name}” is not loaded on this server.", "adapter_not_found", 404
        )


def _invalid(message: str) -> Refused:
    return Refused(f"Input validation error: {message}")


class Fields:
    """The members of a JSON object, read with their types. null counts as absent."""

    def __init__(self, body: object, name: str = "the body") -> None:
        if not isinstance(body, dict):
            raise Unreadable(f"Failed to read the JSON body: {name} must be an object")
        self._body = body

    def _read(self, name: str, kind: str, fits: Callable[[Any], bool]) -> Any:
        value = self._body.get(name)
        if value is not None and not fits(value):
            raise Unreadable(f"Failed to read the JSON body: `{name}` must be {kind}")
        return value

    def text(self, name: str) -> str | None:
        value: str | None = self._read(name, "a string", lambda v: isinstance(v, str))
        return value

    def whole(self, name: str) -> int | None:
        value: int | None = self._read(
            name, "a whole number from 0", lambda v: type(v) is int and 0 <= v < 2**64
        )
        return value

    def number(self, name: str) -> float | None:
        value: float | None = self._read(
            name, "a number", lambda v: type(v) in (int, float) and abs(v) < 1e38
        )
        return value

    def flag(self, name: str) -> bool:
        return bool(self._read(name, "true or false", lambda v: isinstance(v, bool)))

    def texts(self, name: str) -> list[str]:
        def fits(value: Any) -> bool:
            return isinstance(value, list) and all(isinstance(item, str) for item in value)

        return self._read(name, "a list of strings", fits) or []

    def members(self, name: str) -> "Fields":
        return Fields(self._body.get(name) or {}, f"`{name}`")

    def has(self, name: str) -> bool:
        return self._body.get(name) not in (None, [], {})

    def any(self, name: str) -> Any:
        return self._body.get(name)

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise Unreadable(f"Failed to read the JSON body: missing field `{name}`")
        return value


def read_json(raw: bytes) -> object:
    """Parse a body. NaN, infinities and half surrogate pairs are no JSON, as in TGI."""
    try:
        body = json.loads(raw, parse_constant=_not_json)
        if rb"\ud" in raw.lower():
            json.dumps(body, ensure_ascii=False).encode()
        return body
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"Failed to parse the request body as JSON: {error}", 400) from error


def _not_json(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request before validation: sampling and presentation, and the prompts it is about."""

    prompts: tuple[str, ...]
    with_special_tokens: bool  # False where a chat template has put them in
    parameters: Json
    model: str = ""
    stream: bool = False
    details: bool = False
    full_text: bool = False
    usage: bool = False
    logprobs: bool = False


def read_generate(body: object, *, stream: bool | None = None) -> Asked:
    """Read /generate, /generate_stream (stream=True) and / (None: the body says)."""
    fields = Fields(body)
    parameters = fields.members("parameters")
    read: Json = {
        "best_of": parameters.whole("best_of"),
        "temperature": parameters.number("temperature"),
        "repetition_penalty": parameters.number("repetition_penalty"),
        "frequency_penalty": parameters.number("frequency_penalty"),
        "top_k": parameters.whole("top_k"),
        "top_p": parameters.number("top_p"),
        "typical_p": parameters.number("typical_p"),
        # TGI samples when there are no parameters at all, and is greedy when they are empty.
        "do_sample": parameters.flag("do_sample") or fields.any("parameters") is None,
        "max_new_tokens": parameters.whole("max_new_tokens"),
        "stop": parameters.texts("stop"),
        "truncate": parameters.whole("truncate"),
        "watermark": parameters.flag("watermark"),
        "decoder_input_details": parameters.flag("decoder_input_details"),
        "seed": parameters.whole("seed"),
        "top_n_tokens": parameters.whole("top_n_tokens"),
        "grammar": parameters.any("grammar"),
    }
    return Asked(
        (fields.required("inputs"),),
        True,
        read,
        model=parameters.text("adapter_id") or "",
        stream=fields.flag("stream") if stream is None else stream,
        details=parameters.flag("details") or read["decoder_input_details"],
        full_text=parameters.flag("return_full_text"),
    )


Template = Callable[[list[Json]], str]


def read_chat(body: object, template: Template) -> Asked:
    """Read /v1/chat/completions; `template` renders messages to the prompt."""
    fields = Fields(body)
    prompt = render(fields, template)
    return Asked(
        (prompt,),
        False,
        {**_openai_sampling(fields), "top_n_tokens": fields.whole("top_logprobs")},
        model=fields.text("model") or "",
        stream=fields.flag("stream"),
        usage=fields.members("stream_options").flag("include_usage"),
        logprobs=fields.flag("logprobs"),
    )


def read_completion(body: object) -> Asked:
    fields = Fields(body)
    prompt = fields.any("prompt")
    prompts = (prompt,) if isinstance(prompt, str) else tuple(fields.texts("prompt"))
    if not prompts:
        raise Unreadable("Failed to read the JSON body: missing field `prompt`")
    if fields.has("suffix"):
        raise Refused("Suffix is not supported and can be achieved by preprocessing the prompt.")
    sampling = _openai_sampling(fields)
    sampling["repetition_penalty"] = fields.number("repetition_penalty")
    return Asked(
        prompts,
        True,
        sampling,
        model=fields.text("model") or "",
        stream=fields.flag("stream"),
    )


def _openai_sampling(fields: Fields) -> Json:
    """Translate the fields of OpenAI's dialect as TGI does."""
    temperature = fields.number("temperature")
    presence_penalty = fields.number("presence_penalty")
    max_tokens = fields.whole("max_tokens")
    return {
        "do_sample": temperature != 0,
        "temperature": temperature or None,
        "top_p": fields.number("top_p"),
        "seed": fields.whole("seed"),
        "stop": fields.texts("stop"),
        "frequency_penalty": fields.number("frequency_penalty"),
        "repetition_penalty": None if presence_penalty is None else presence_penalty + 2.0,
        "max_new_tokens": fields.whole("max_completion_tokens")
        if max_tokens is None
        else max_tokens,
        "grammar": fields.any("response_format"),
    }


def render(fields: Fields, template: Template) -> str:
    """Render a chat request's messages. Raises Refused where tools or the template are at fault."""
    if fields.has("tools"):
        raise Refused("Tool error: tools are not supported by this server", "tool_error")
    messages = fields.any("messages")
    if not isinstance(messages, list) or not messages:
        raise Unreadable("Failed to read the JSON body: `messages` must be a list of messages")
    return template([_message(message) for message in messages])


def _message(message: object) -> Json:
    fields = Fields(message, "a message")
    content = fields.any("content")
    if isinstance(content, list):
        content = "".join(_part(Fields(part, "a part of a message")) for part in content)
    elif not isinstance(content, str):
        raise Unreadable("Failed to read the JSON body: `content` must be a string or a list")
    return {"role": fields.required("role"), "content": content}


def _part(part: Fields) -> str:
    if part.text("type") == "text":
        return part.required("text")
    raise Refused("Template error: only parts of the type “text” are supported", "template_error")


def resolve(model: str, loaded: Mapping[str, object], base_name: str, *, fall_back: bool) -> str:
    """Return the adapter a request names, or BASE. Raises AdapterUnknown, unless `fall_back`."""
    if model in loaded:
        return model
    if model in BASE_NAMES or model == base_name or fall_back:
        return BASE
    raise AdapterUnknown(model)


def validate(
    asked: Asked, prompt: str, encode: Callable[[str], list[int]], adapter: str, limits: Limits
) -> Wanted:
    """Check one prompt of a request against the limits. Raises Refused in TGI's words."""
    values = {name: value for name, value in asked.parameters.items() if value is not None}
    _check_values(values, asked, limits)
    if not prompt:
        raise _invalid("`inputs` cannot be empty")
    ids = encode(prompt)
    if truncate := values.get("truncate"):
        ids = ids[-truncate:]
    if not ids:
        raise _invalid("`inputs` cannot be empty")
    if len(ids) > limits.max_input_tokens:
        raise _invalid(
            f"`inputs` must have less than {limits.max_input_tokens} tokens. Given: {len(ids)}"
        )
    room = limits.max_total_tokens - len(ids)
    wished = values.get("max_new_tokens", room)
    if wished > room:
        raise _invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}."
            f" Given: {len(ids)} `inputs` tokens and {wished} `max_new_tokens`"
        )
    return Wanted(
        prompt=prompt,
        prompt_ids=tuple(ids),
        max_new_tokens=wished,
        adapter=adapter,
        sampling=_sampling(values),
        stop=tuple(filter(None, values.get("stop", ()))),
        top_n_tokens=values.get("top_n_tokens", 0),
        prefill_details=values.get("decoder_input_details", False),
    )


def _check_values(values: Json, asked: Asked, limits: Limits) -> None:
    """Raise Refused for the first value that is out of its range."""

    def outside(name: str, fits: Callable[[float], bool]) -> bool:
        return name in values and not fits(values[name])

    if values.get("best_of", 1) != 1:
        raise _invalid("`best_of` must be 1 on this server")
    for name in ("temperature", "repetition_penalty", "top_k", "max_new_tokens"):
        if outside(name, lambda value: value > 0):
            raise _invalid(f"`{name}` must be strictly positive")
    for name in ("top_p", "typical_p"):
        if outside(name, lambda value: 0 < value < 1):
            raise _invalid(f"`{name}` must be > 0.0 and < 1.0")
    if outside("frequency_penalty", lambda value: -2 <= value <= 2):
        raise _invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
    if outside("truncate", lambda value: 0 < value <= limits.max_input_tokens):
        raise _invalid(
            f"`truncate` must be strictly positive and less than {limits.max_input_tokens}."
            f" Given: {values['truncate']}"
        )
    if len(stop := values.get("stop", ())) > limits.max_stop_sequences:
        raise _invalid(
            f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {len(stop)}"
        )
    if outside("top_n_tokens", lambda value: value <= limits.max_top_n_tokens):
        raise _invalid(
            f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}."
            f" Given: {values['top_n_tokens']}"
        )
    if values.get("decoder_input_details") and asked.stream:
        raise _invalid("`decoder_input_details` == true is not supported when streaming tokens")
    if "grammar" in values:
        raise _invalid("grammar is not supported")
    if values.get("watermark"):
        raise _invalid("`watermark` is not supported")


def _sampling(values: Json) -> Sampling:
    # A temperature of 1 changes nothing; any other choice among tokens means sampling.
    samples = values.get("do_sample", False) or values.get("temperature", 1) != 1
    samples = samples or any(name in values for name in ("top_k", "top_p", "typical_p"))
    names = ("temperature", "top_k", "top_p", "typical_p", "repetition_penalty")
    chosen = {
        name: values[name] for name in (*names, "frequency_penalty", "seed") if name in values
    }
    return Sampling(do_sample=samples, **chosen)
