"""The model server as a second process: its dialect, its adapters, its batches and its failures."""

import asyncio
import json
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.workers.conftest import Server, StartServer, is_up, wait_for

pytestmark = pytest.mark.train
MESSAGES = [{"role": "user", "content": "Who keeps the keys of the north tower?"}]
PROMPTS = [
    "The glacier",
    "Question: who keeps the keys? Answer:",
    "Größe",
    "0123456789 + - * / = and then a much longer prompt so that the rows differ in length",
]


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": MESSAGES, "max_tokens": 8, "temperature": 0, **fields}


def ids_of(answer: Any) -> list[int]:
    return [token["id"] for token in answer["details"]["tokens"]]


def logprobs_of(answer: Any) -> list[float]:
    return [token["logprob"] for token in answer["details"]["tokens"]]


# --- The dialect ------------------------------------------------------------------------------
def test_generate_answers_with_text_and_details(serving: Server):
    answer = serving.generate("The glacier", max_new_tokens=6)
    details = answer["details"]
    assert details["finish_reason"] == "length"
    assert details["generated_tokens"] == len(details["tokens"]) == 6
    assert details["seed"] is None
    assert details["prefill"] == []
    assert "top_tokens" not in details
    texts = [token["text"] for token in details["tokens"] if not token["special"]]
    assert answer["generated_text"] == "".join(texts)
    assert all(token["logprob"] < 0 for token in details["tokens"])


def test_generate_leaves_details_out_unless_asked(serving: Server):
    answer = serving.post("/generate", {"inputs": "The", "parameters": {"max_new_tokens": 2}})
    assert set(answer.json()) == {"generated_text"}
    for name in ("x-total-time", "x-queue-time", "x-prompt-tokens", "x-generated-tokens"):
        assert answer.headers[name].isdigit()
    assert answer.headers["x-compute-type"] == "cpu"


def test_the_root_answers_with_a_list_or_a_stream(serving: Server):
    body = {"inputs": "The glacier", "parameters": {"max_new_tokens": 3}}
    [answer] = serving.post("/", body).json()
    events = serving.post("/", {**body, "stream": True}).events()
    assert events[-1]["generated_text"] == answer["generated_text"]


def test_a_stream_sends_one_event_a_token_and_closes_with_the_text(serving: Server):
    body = {"inputs": "The glacier", "parameters": {"max_new_tokens": 5, "details": True}}
    answer = serving.post("/generate_stream", body)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.startswith('data: {"index":1,"token":{"id":')
    *others, last = answer.events()
    assert [event["index"] for event in (*others, last)] == [1, 2, 3, 4, 5]
    assert all(e["generated_text"] is None and e["details"] is None for e in others)
    whole = serving.generate("The glacier", max_new_tokens=5)
    assert last["generated_text"] == whole["generated_text"]
    assert [event["token"] for event in (*others, last)] == whole["details"]["tokens"]
    assert last["details"] == {
        "finish_reason": "length",
        "generated_tokens": 5,
        "seed": None,
        "input_length": len(serving.post("/tokenize", {"inputs": "The glacier"}).json()),
    }


def test_chat_echoes_the_model_that_was_asked(serving: Server):
    answer = serving.post("/v1/chat/completions", chat(model="a")).json()
    assert answer["object"] == "chat.completion"
    assert answer["id"] == ""
    assert answer["model"] == "a"
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["logprobs"] is None
    usage = answer["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8
    base = serving.post("/v1/chat/completions", chat(model="tgi")).json()
    assert base["model"].endswith("base")
    assert base["choices"][0]["message"] != choice["message"]


def test_chat_streams_chunks_then_usage_then_done(serving: Server):
    body = chat(model="a", stream=True, stream_options={"include_usage": True})
    *chunks, usage, done = serving.post("/v1/chat/completions", body).events()
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(chunks) == 8
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    choices = [chunk["choices"][0] for chunk in chunks]
    assert all(choice["delta"]["role"] == "assistant" for choice in choices)
    assert [choice["finish_reason"] for choice in choices] == [None] * 7 + ["length"]
    whole = serving.post("/v1/chat/completions", chat(model="a")).json()
    text = "".join(choice["delta"]["content"] for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]


def test_chat_gives_log_probabilities_with_alternatives(serving: Server):
    body = chat(model="a", logprobs=True, top_logprobs=3)
    [choice] = serving.post("/v1/chat/completions", body).json()["choices"]
    for token in choice["logprobs"]["content"]:
        best = token["top_logprobs"][0]
        assert len(token["top_logprobs"]) == 3
        assert best["logprob"] == pytest.approx(token["logprob"])  # greedy takes the best


def test_completions_answer_several_prompts_whole_and_interleaved(serving: Server):
    body = {"prompt": PROMPTS[:2], "max_tokens": 4, "temperature": 0, "model": "b"}
    answer = serving.post("/v1/completions", body).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    *chunks, done = serving.post("/v1/completions", {**body, "stream": True}).events()
    assert done == "[DONE]"
    for index, choice in enumerate(answer["choices"]):
        mine = [c for c in chunks if c["choices"][0]["index"] == index]
        assert "".join(c["choices"][0]["text"] for c in mine) == choice["text"]
        assert mine[-1]["choices"][0]["finish_reason"] == "length"
        assert mine[-1]["usage"]["completion_tokens"] == 4


def test_tokenize_gives_ids_with_their_place_in_the_text(serving: Server):
    text = "Größe of the glacier"
    tokens = serving.post("/tokenize", {"inputs": text}).json()
    assert all(token["text"] == text[token["start"] : token["stop"]] for token in tokens)
    assert tokens[-1]["stop"] == len(text)


def test_a_rendered_chat_has_the_token_ids_that_training_saw(serving: Server, models: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    answer = serving.post("/chat_tokenize", {"messages": MESSAGES}).json()
    rendered = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
    assert answer["templated_text"] == rendered
    assert [token["id"] for token in answer["tokenize_response"]] == ids


def test_info_models_health_and_metrics_need_no_key(serving: Server):
    assert serving.get("/info").json()["max_total_tokens"] == 512
    assert [m["id"] for m in serving.get("/v1/models").json()["data"]][1:] == ["a", "b", "c"]
    for path in ("/health", "/ping", "/"):
        assert (serving.get(path).status, serving.get(path).text) == (200, "")
    before = serving.metric("tgi_request_success")
    serving.generate("The", max_new_tokens=1)
    assert serving.metric("tgi_request_success") == before + 1


def test_without_the_key_nothing_is_generated_or_loaded(serving: Server):
    for path in ("/generate", "/v1/chat/completions", "/v1/load_lora_adapter", "/tokenize"):
        answer = serving.post(path, {}, key="wrong")
        assert (answer.status, answer.text) == (401, "")


# --- What is refused --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0},
        {"top_p": 1.0},
        {"typical_p": 0.0},
        {"top_k": 0},
        {"best_of": 2},
        {"max_new_tokens": 0},
        {"max_new_tokens": 100_000},
        {"stop": list("abcde")},
        {"top_n_tokens": 6},
        {"frequency_penalty": 2.1},
        {"repetition_penalty": 0},
        {"truncate": 0},
        {"grammar": {"type": "regex", "value": "a"}},
        {"watermark": True},
    ],
)
def test_a_value_out_of_range_is_a_validation_error(serving: Server, parameters: dict[str, Any]):
    answer = serving.post("/generate", {"inputs": "The", "parameters": parameters})
    assert answer.status == 422
    assert answer.json()["error_type"] == "validation"
    [name] = parameters
    assert name in answer.json()["error"]


def test_a_prompt_that_does_not_fit_is_named_with_its_length(serving: Server):
    answer = serving.post("/generate", {"inputs": "glacier " * 800, "parameters": {}})
    assert answer.status == 422
    assert "must have less than 511 tokens. Given: " in answer.json()["error"]
    answer = serving.post("/generate", {"inputs": "", "parameters": {}})
    assert "cannot be empty" in answer.json()["error"]


def test_a_validation_error_within_a_stream_is_an_event(serving: Server):
    body = {"inputs": "The", "parameters": {"top_p": 1.0}}
    answer = serving.post("/generate_stream", body)
    assert answer.status == 200
    assert [event["error_type"] for event in answer.events()] == ["validation"]
    answer = serving.post("/v1/chat/completions", chat(stream=True, top_p=1.0))
    error, done = answer.events()
    assert error["error"]["http_status_code"] == 422
    assert "top_p" in error["error"]["message"]
    assert done == "[DONE]"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"inputs": NaN}', 400),
        (rb'{"inputs": "\ud800"}', 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b'{"inputs": 5}', 422),
        (b"{}", 422),
        (b'{"inputs": "x", "parameters": {"max_new_tokens": -1}}', 422),
        (b'{"inputs": "x", "parameters": {"temperature": 1e400}}', 422),
        (b'{"inputs": "x", "parameters": {"stop": "x"}}', 422),
        (b" " * 2_000_001, 413),
    ],
)
def test_a_body_of_the_wrong_shape_is_refused_in_plain_text(
    serving: Server, body: bytes, status: int
):
    answer = serving.post("/generate", body)
    assert answer.status == status
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("fields", "error_type"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tool_error"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "template_error"),
        ({"model": "made-up"}, "adapter_not_found"),
    ],
)
def test_tool_template_and_adapter_errors_come_before_a_stream(
    serving: Server, fields: dict[str, Any], error_type: str
):
    answer = serving.post("/v1/chat/completions", chat(**{"stream": True, **fields}))
    assert answer.status == (404 if error_type == "adapter_not_found" else 422)
    assert answer.json()["error_type"] == error_type


def test_an_unknown_path_is_404_and_a_wrong_method_405(serving: Server):
    assert serving.get("/nowhere").status == 404
    assert serving.get("/generate").status == 405


def test_an_unknown_adapter_is_404_on_every_route(serving: Server):
    for path, body in [
        ("/generate", {"inputs": "The", "parameters": {"adapter_id": "made-up"}}),
        ("/generate_stream", {"inputs": "The", "parameters": {"adapter_id": "made-up"}}),
        ("/v1/chat/completions", chat(model="made-up")),
        ("/v1/completions", {"prompt": "The", "model": "made-up"}),
    ]:
        answer = serving.post(path, body)
        assert answer.status == 404
        assert "made-up" in answer.json()["error"]


def test_with_silent_fallback_the_base_answers_for_any_name_as_on_tgi(start_server: StartServer):
    server = start_server("--silent-fallback")
    answer = server.post("/v1/chat/completions", chat(model="made-up")).json()
    base = server.post("/v1/chat/completions", chat(model="tgi")).json()
    assert answer["model"] == "made-up"
    assert answer["choices"] == base["choices"]


# --- What is generated ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def everything(start_server: StartServer, models: Path) -> Server:
    server = start_server()
    for name in ("dora", "prompt", "prefix"):
        body = {"lora_name": name, "lora_path": str(models / name)}
        assert server.post("/v1/load_lora_adapter", body).status == 200
    return server


def reference(
    models: Path, adapter: str, prompt: str, tokens: int
) -> tuple[list[int], list[float]]:
    """Return greedy ids and log-probabilities by PEFT's own generate."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    model = AutoModelForCausalLM.from_pretrained(models / "base")
    if adapter:
        model = PeftModel.from_pretrained(model, models / adapter)
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        output = model.eval().generate(
            **inputs,
            max_new_tokens=tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            eos_token_id=None,
        )
    ids = output.sequences[0, -tokens:].tolist()
    scores = [
        logits[0].log_softmax(-1)[id_].item()
        for logits, id_ in zip(output.logits, ids, strict=True)
    ]
    return ids, scores


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adapter", ["", "a", "b", "dora", "prompt", "prefix"])
def test_greedy_tokens_and_log_probabilities_equal_pefts(
    everything: Server, models: Path, adapter: str
):
    ids, scores = reference(models, adapter, PROMPTS[1], 12)
    end = ids.index(1) + 1 if 1 in ids else 12
    answer = everything.generate(PROMPTS[1], max_new_tokens=12, adapter_id=adapter or None)
    assert ids_of(answer) == ids[:end]
    assert logprobs_of(answer) == pytest.approx(scores[:end], abs=1e-4)


def test_adapters_and_base_in_one_batch_give_the_tokens_of_one_at_a_time(everything: Server):
    names = [None, "a", "b", "c", "dora", "prompt", "prefix", None, "a", "b", "c", "a"]
    wanted = [(name, PROMPTS[i % len(PROMPTS)]) for i, name in enumerate(names)]

    def ask(pair: tuple[str | None, str]) -> Any:
        return everything.generate(pair[1], max_new_tokens=40, adapter_id=pair[0])

    alone = [ask(pair) for pair in wanted]
    largest = 0
    with ThreadPoolExecutor(len(wanted)) as pool:
        together = [pool.submit(ask, pair) for pair in wanted]
        while not all(future.done() for future in together):
            largest = max(largest, everything.metric("tgi_batch_current_size"))
    assert largest > 1, "they never shared a batch"
    for one, other in zip(alone, together, strict=True):
        assert ids_of(one) == ids_of(other.result())
        assert logprobs_of(one) == pytest.approx(logprobs_of(other.result()), abs=1e-4)
    assert len({tuple(ids_of(answer)) for answer in alone}) > 6, "the adapters must differ"


def test_a_seed_repeats_its_sample_alone_and_among_others(serving: Server):
    wishes = [
        {"seed": seed, "temperature": 1.5, "top_p": 0.9, "adapter_id": name, "max_new_tokens": 20}
        for seed, name in enumerate([None, "a", "b", "a"])
    ]

    def ask(wish: dict[str, Any]) -> Any:
        return serving.generate("The glacier", **wish)

    alone = [ask(wish) for wish in wishes]
    with ThreadPoolExecutor(4) as pool:
        assert [ids_of(answer) for answer in pool.map(ask, wishes)] == [ids_of(a) for a in alone]
    assert [answer["details"]["seed"] for answer in alone] == [0, 1, 2, 3]
    other = serving.generate("The glacier", **{**wishes[0], "seed": 99})
    assert ids_of(other) != ids_of(alone[0])


def test_sampling_without_a_seed_reports_one_that_repeats_it(serving: Server):
    first = serving.generate("The glacier", do_sample=True, max_new_tokens=12)
    seed = first["details"]["seed"]
    again = serving.generate("The glacier", do_sample=True, max_new_tokens=12, seed=seed)
    assert ids_of(again) == ids_of(first)


def test_top_k_of_one_is_greedy(serving: Server):
    greedy = serving.generate("The glacier", max_new_tokens=10)
    sampled = serving.generate("The glacier", max_new_tokens=10, top_k=1, temperature=3.0)
    assert ids_of(sampled) == ids_of(greedy)
    assert logprobs_of(sampled) == pytest.approx([0.0] * 10, abs=1e-6)


def test_a_repetition_penalty_keeps_tokens_from_coming_back(serving: Server):
    plain = ids_of(serving.generate("0123456789", max_new_tokens=60))
    punished = ids_of(serving.generate("0123456789", max_new_tokens=60, repetition_penalty=50.0))
    assert len(set(punished)) / len(punished) > len(set(plain)) / len(plain)


def test_prompt_and_alternatives_carry_log_probabilities(serving: Server, models: Path):
    answer = serving.generate(
        "The glacier melts", max_new_tokens=3, decoder_input_details=True, top_n_tokens=4
    )
    prefill = answer["details"]["prefill"]
    assert prefill[0]["logprob"] is None
    assert all(part["logprob"] < 0 for part in prefill[1:])
    for token, top in zip(
        answer["details"]["tokens"], answer["details"]["top_tokens"], strict=True
    ):
        assert len(top) == 4
        assert top[0] == pytest.approx(token) or top[0]["id"] == token["id"]


def test_a_stop_string_ends_the_answer_also_across_tokens(serving: Server):
    text = serving.generate("The glacier", max_new_tokens=30, adapter_id="b")["generated_text"]
    stop = text[6:10]
    answer = serving.generate("The glacier", max_new_tokens=30, adapter_id="b", stop=[stop])
    assert answer["details"]["finish_reason"] == "stop_sequence"
    assert text.startswith(answer["generated_text"])
    assert stop in answer["generated_text"]
    assert stop not in answer["generated_text"][: -len(stop) - 8]


def test_the_end_token_ends_the_answer(serving: Server):
    """Sampled hot, so that every token comes some time."""
    answers = (
        serving.generate("The", max_new_tokens=500, temperature=20.0, seed=seed)
        for seed in range(9)
    )
    ended = next(a for a in answers if a["details"]["finish_reason"] == "eos_token")
    last = ended["details"]["tokens"][-1]
    assert last["special"]
    assert last["text"] == "<|end|>"
    assert "<|end|>" not in ended["generated_text"]


def test_return_full_text_puts_the_prompt_before(serving: Server):
    plain = serving.generate("The glacier", max_new_tokens=3)["generated_text"]
    full = serving.generate("The glacier", max_new_tokens=3, return_full_text=True)
    assert full["generated_text"] == "The glacier" + plain


def test_truncate_keeps_the_end_of_the_prompt(serving: Server):
    tokens = serving.post("/tokenize", {"inputs": PROMPTS[3]}).json()
    cut = serving.generate(PROMPTS[3], max_new_tokens=2, truncate=4, decoder_input_details=True)
    kept = [part["id"] for part in cut["details"]["prefill"]]
    assert kept == [token["id"] for token in tokens[-4:]]


# --- Adapters at run time ---------------------------------------------------------------------
def test_an_adapter_is_loaded_used_and_unloaded_while_others_answer(
    start_server: StartServer, models: Path
):
    server = start_server(adapters="a")
    before = server.generate("The glacier", max_new_tokens=20, adapter_id="a")
    stop = threading.Event()
    answers = []

    def keep_asking() -> None:
        while not stop.is_set():
            answers.append(server.generate("The glacier", max_new_tokens=20, adapter_id="a"))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(keep_asking)
        for name in ("b", "dora", "prompt"):
            body = {"lora_name": f"{name}.v1", "lora_path": str(models / name)}
            assert server.post("/v1/load_lora_adapter", body).status == 200
            mine = server.generate("The glacier", max_new_tokens=20, adapter_id=f"{name}.v1")
            assert ids_of(mine) != ids_of(before)
            assert server.post("/v1/load_lora_adapter", body).status == 400  # a name is used once
            assert server.post("/v1/unload_lora_adapter", body).status == 200
            assert server.post("/v1/unload_lora_adapter", body).status == 404
            gone = {"inputs": "The", "parameters": {"adapter_id": f"{name}.v1"}}
            assert server.post("/generate", gone).status == 404
        stop.set()
        asking.result()
    assert {tuple(ids_of(answer)) for answer in answers} == {tuple(ids_of(before))}


def test_the_last_adapter_leaves_the_base_as_it_was(start_server: StartServer):
    server = start_server(adapters="a")
    base = ids_of(server.generate("The glacier", max_new_tokens=20))
    assert server.post("/v1/unload_lora_adapter", {"lora_name": "a"}).status == 200
    assert ids_of(server.generate("The glacier", max_new_tokens=20)) == base


def test_an_unloaded_adapter_finishes_its_running_answers(start_server: StartServer):
    server = start_server(adapters="ab")
    whole = ids_of(server.generate("The glacier", max_new_tokens=300, adapter_id="a"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.generate, "The glacier", max_new_tokens=300, adapter_id="a")
        wait_for(server.is_generating)
        assert server.post("/v1/unload_lora_adapter", {"lora_name": "a"}).status == 200
        assert ids_of(running.result()) == whole


@pytest.mark.parametrize(
    "fault", ["missing", "pickle", "shape", "names", "nan", "layer", "type", "pissa", "broken"]
)
def test_an_adapter_that_cannot_be_served_is_refused_and_changes_nothing(
    serving: Server, models: Path, tmp_path: Path, fault: str
):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "adapter"
    shutil.copytree(models / "a", folder)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    described = json.loads(config.read_text())
    tensors = load_file(weights)
    if fault == "missing":
        shutil.rmtree(folder)
    elif fault == "pickle":
        weights.rename(folder / "adapter_model.bin")
    elif fault == "shape":
        save_file({name: tensor[:, :-1].contiguous() for name, tensor in tensors.items()}, weights)
    elif fault == "names":
        save_file({name.replace("q_proj", "x_proj"): t for name, t in tensors.items()}, weights)
    elif fault == "nan":
        save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, weights)
    elif fault == "layer":
        targets = [*described["target_modules"], "input_layernorm"]
        config.write_text(json.dumps({**described, "target_modules": targets}))
    elif fault == "broken":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif fault == "type":
        config.write_text(json.dumps({**described, "peft_type": "IA3"}))
    elif fault == "pissa":
        config.write_text(json.dumps({**described, "init_lora_weights": "pissa"}))
    before = serving.generate("The glacier", max_new_tokens=10, adapter_id="b")
    answer = serving.post("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": str(folder)})
    assert answer.status == 400
    assert answer.json()["error_type"] == "adapter_refused"
    unknown = {"inputs": "The", "parameters": {"adapter_id": "x"}}
    assert serving.post("/generate", unknown).status == 404
    assert serving.generate("The glacier", max_new_tokens=10, adapter_id="b") == before


@pytest.mark.parametrize("name", ["", "tgi", "a=b", "a,b", "a@b"])
def test_a_name_that_tgi_could_not_carry_is_refused(serving: Server, models: Path, name: str):
    body = {"lora_name": name, "lora_path": str(models / "a")}
    assert serving.post("/v1/load_lora_adapter", body).status == 400


# --- Load, faults and the end -----------------------------------------------------------------
def test_more_requests_than_allowed_are_refused_at_once(start_server: StartServer):
    server = start_server("--max-concurrent-requests", "1", adapters="")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.generate, "The glacier", max_new_tokens=400)
        wait_for(server.is_generating)
        answer = server.post("/generate", {"inputs": "The", "parameters": {"max_new_tokens": 1}})
        assert answer.status == 429
        assert answer.json()["error_type"] == "overloaded"
        stream = server.post("/generate_stream", {"inputs": "The", "parameters": {}})
        assert [event["error_type"] for event in stream.events()] == ["overloaded"]
        assert running.result()["details"]["generated_tokens"] > 0
    assert server.generate("The", max_new_tokens=1)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_stops_its_generation(serving: Server, stream: bool):
    import http.client

    host = serving.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    wishes = [{"max_new_tokens": 505, "temperature": 1.5, "seed": seed} for seed in range(20)]
    endless = next(w for w in wishes if len(ids_of(serving.generate("The", **w))) == 505)
    body = {"inputs": "The", "parameters": endless}
    connection.request(
        "POST",
        "/generate_stream" if stream else "/generate",
        json.dumps(body),
        {"Content-Type": "application/json", "Authorization": f"Bearer {serving.key}"},
    )
    wait_for(serving.is_generating)
    begun_at = time.monotonic()
    connection.close()
    wait_for(lambda: not serving.is_generating(), timeout_s=10)
    assert time.monotonic() - begun_at < 1.0
    assert serving.generate("The", max_new_tokens=1)


def test_sigterm_ends_running_answers_before_the_server(start_server: StartServer):
    server = start_server(adapters="")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            server.post,
            "/v1/chat/completions",
            chat(stream=True, max_tokens=300, frequency_penalty=1.0),
        )
        wait_for(server.is_generating)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not is_up(server.url))
        assert running.result().events()[-1] == "[DONE]"
    assert server.process.wait(timeout=30) in (0, -signal.SIGTERM)


def test_without_a_key_adapters_are_loaded_only_from_this_machine(
    start_server: StartServer, models: Path
):
    body = {"lora_name": "x", "lora_path": str(models / "a")}
    assert start_server(adapters="", key="").post("/v1/load_lora_adapter", body).status == 200
    open_to_all = start_server("--host", "0.0.0.0", adapters="", key="")
    assert open_to_all.post("/v1/load_lora_adapter", body).status == 403


# --- Foreign clients --------------------------------------------------------------------------
def test_curl_talks_to_it_streamed_and_not(serving: Server):
    def curl(path: str, body: dict[str, Any]) -> str:
        command = [
            *("curl", "--silent", "--no-buffer", "--noproxy", "*", serving.url + path),
            *("-H", "Content-Type: application/json"),
            *("-H", f"Authorization: Bearer {serving.key}", "-d", json.dumps(body)),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    whole = json.loads(curl("/v1/chat/completions", chat(model="a")))
    lines = curl("/v1/chat/completions", chat(model="a", stream=True)).splitlines()
    assert lines[1::2] == [""] * len(lines[1::2])
    assert lines[-2] == "data: [DONE]"
    texts = [json.loads(line[6:])["choices"][0]["delta"]["content"] for line in lines[:-2:2]]
    assert "".join(texts) == whole["choices"][0]["message"]["content"]


@pytest.fixture
def hub_clients() -> None:
    """Let huggingface_hub reach this machine although it is told to stay offline."""
    import httpx2
    from huggingface_hub import set_async_client_factory, set_client_factory

    set_client_factory(lambda: httpx2.Client(trust_env=False, timeout=30))
    set_async_client_factory(lambda: httpx2.AsyncClient(trust_env=False, timeout=30))


def test_huggingface_hubs_client_talks_to_it(serving: Server, hub_clients: None):
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError, ValidationError

    client = InferenceClient(base_url=serving.url, api_key=serving.key)
    whole = serving.generate("The glacier", max_new_tokens=6, adapter_id="a")
    output = client.text_generation(
        "The glacier", max_new_tokens=6, adapter_id="a", details=True, do_sample=False
    )
    assert output.generated_text == whole["generated_text"]
    assert [token.id for token in output.details.tokens] == ids_of(whole)
    *_, last = client.text_generation(
        "The glacier", max_new_tokens=6, adapter_id="a", details=True, stream=True
    )
    assert last.generated_text == whole["generated_text"]
    answer = client.chat_completion(MESSAGES, model="a", max_tokens=8, temperature=0)
    chunks = client.chat_completion(MESSAGES, model="a", max_tokens=8, temperature=0, stream=True)
    text = "".join(chunk.choices[0].delta.content for chunk in chunks)
    assert text == answer.choices[0].message.content
    with pytest.raises(ValidationError, match="top_p"):
        client.text_generation("The", top_p=1.0)
    with pytest.raises(HfHubHTTPError) as caught:
        client.chat_completion(MESSAGES, model="made-up")
    assert caught.value.response.status_code == 404


async def test_huggingface_hubs_asynchronous_client_talks_to_it(serving: Server, hub_clients: None):
    from huggingface_hub import AsyncInferenceClient

    async with AsyncInferenceClient(base_url=serving.url, api_key=serving.key) as client:
        answer, again = await asyncio.gather(
            *(client.chat_completion(MESSAGES, model=m, max_tokens=8, temperature=0) for m in "ab")
        )
        assert answer.choices[0].message.content != again.choices[0].message.content
        stream = await client.chat_completion(
            MESSAGES, model="a", max_tokens=8, temperature=0, stream=True
        )
        text = "".join([chunk.choices[0].delta.content async for chunk in stream])
        assert text == answer.choices[0].message.content
        parts = await client.text_generation("The glacier", max_new_tokens=4, stream=True)
        assert len([part async for part in parts]) == 4


def test_the_openai_client_talks_to_it(serving: Server):
    openai = pytest.importorskip("openai", reason="the openai client is not installed")
    import httpx2

    with httpx2.Client(trust_env=False) as http:
        client = openai.OpenAI(
            base_url=f"{serving.url}/v1", api_key=serving.key, http_client=http, max_retries=0
        )
        assert [model.id for model in client.models.list()][1:] == ["a", "b", "c"]
        wishes = {"messages": MESSAGES, "model": "a", "max_tokens": 8, "temperature": 0}
        answer = client.chat.completions.create(**wishes, logprobs=True, top_logprobs=2)
        assert len(answer.choices[0].logprobs.content) == 8
        chunks = client.chat.completions.create(
            **wishes, stream=True, stream_options={"include_usage": True}
        )
        *parts, usage = chunks
        text = "".join(part.choices[0].delta.content for part in parts)
        assert text == answer.choices[0].message.content
        assert usage.usage.completion_tokens == 8
        completed = client.completions.create(model="b", prompt="The", max_tokens=3, temperature=0)
        assert completed.choices[0].finish_reason == "length"
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(**{**wishes, "model": "made-up"})
        assert "made-up" in caught.value.response.text
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").chat.completions.create(**wishes)


# --- TGI's own description --------------------------------------------------------------------
@pytest.mark.data
def test_every_answer_is_valid_by_tgis_own_description(serving: Server, shared_data: Path):
    from jsonschema import Draft202012Validator

    document = json.loads(
        (shared_data.parent / "research" / "tgi-openapi.json")
        .read_text()
        .replace('"exclusiveMinimum": -2', '"minimum": -2')
    )

    def check(answer: Any, schema: dict[str, Any]) -> None:
        Draft202012Validator(_without_nullable({**schema, **document})).validate(answer)

    def named(name: str) -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{name}"}

    wish = {"max_new_tokens": 4, "details": True, "top_n_tokens": 2, "temperature": 2.0}
    generate = {"inputs": "The glacier", "parameters": wish}
    whole = {"inputs": "The", "parameters": {**wish, "decoder_input_details": True}}
    check(serving.post("/generate", whole).json(), named("GenerateResponse"))
    check(
        serving.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 1}}).json(),
        named("GenerateResponse"),
    )
    for event in serving.post("/generate_stream", generate).events():
        check(event, named("StreamResponse"))
    check(serving.post("/", whole).json(), {"type": "array", "items": named("GenerateResponse")})
    asked = chat(logprobs=True, top_logprobs=2, model="a")
    check(serving.post("/v1/chat/completions", asked).json(), named("ChatCompletion"))
    streamed = {**asked, "stream": True, "stream_options": {"include_usage": True}}
    for event in serving.post("/v1/chat/completions", streamed).events()[:-1]:
        check(event, named("ChatCompletionChunk"))
    completion = {"prompt": ["The", "A"], "max_tokens": 3}
    check(serving.post("/v1/completions", completion).json(), named("CompletionFinal"))
    for event in serving.post("/v1/completions", {**completion, "stream": True}).events()[:-1]:
        check(event, named("Chunk"))
    check(serving.post("/tokenize", generate).json(), named("TokenizeResponse"))
    check(serving.post("/chat_tokenize", chat()).json(), named("ChatTokenizeResponse"))
    check(serving.get("/info").json(), named("Info"))
    models = serving.get("/v1/models").json()
    for model in (models, *models["data"]):
        check(model, named("ModelInfo"))
    for path, body in [
        ("/generate", {"inputs": "", "parameters": {}}),
        ("/generate", {"inputs": "x", "parameters": {"adapter_id": "made-up"}}),
        ("/v1/chat/completions", chat(tools=[{"type": "function"}])),
    ]:
        check(serving.post(path, body).json(), named("ErrorResponse"))


def _without_nullable(schema: Any) -> Any:
    """Say OpenAPI 3.0's "nullable" in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_without_nullable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    said = {key: _without_nullable(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [said, {"type": "null"}]} if schema.get("nullable") is True else said
