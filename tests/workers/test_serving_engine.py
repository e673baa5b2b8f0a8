"""The engine in this process: model families, and faults in the middle of a batch."""

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import random_models

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch", reason="torch comes with the train extra")

PROMPTS = [[5, 6, 7, 8], [9] * 30, [10, 11], list(range(20, 60))]
SMALL = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 12},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma2": {"sliding_window": 12, "head_dim": 16},
    "gemma3_text": {"sliding_window": 12, "head_dim": 16},
    "granite": {},
    "phi3": {},
}


@pytest.fixture
def engines() -> Iterator[Any]:
    """Return a function that starts an engine on a model."""
    from workers.serving.engine import Engine, Vocabulary
    from workers.serving.generation import Limits

    started = []

    def start(model: Any) -> Engine:
        class Letters:
            def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
                return "".join(chr(32 + i) for i in ids)

        vocabulary: Any = Vocabulary(Letters(), frozenset({1}), frozenset({0, 1}))  # type: ignore[arg-type]
        engine = Engine(model.eval(), vocabulary, Limits(max_total_tokens=256))
        engine.start()
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.stop()


async def answer(engine: Any, ids: list[int], tokens: int = 24, adapter: str = "") -> list[int]:
    from workers.serving.generation import Generation, Wanted

    generation = Generation(Wanted("", tuple(ids), tokens, adapter))
    engine.submit(generation)
    return [token.id async for token in generation.tokens() if token]


def random_model(family: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **{**SMALL, **FAMILIES[family]})
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("family", list(FAMILIES))
async def test_rows_that_join_and_leave_get_the_tokens_of_generate(engines: Any, family: str):
    model = random_model(family)
    expected = []
    for ids in PROMPTS:
        prompt = torch.tensor([ids])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False
            )
        expected.append(output[0, len(ids) :].tolist())
    engine = engines(model)
    tasks = []
    for ids in PROMPTS:
        tasks.append(asyncio.create_task(answer(engine, ids)))
        await asyncio.sleep(0.03)
    assert await asyncio.gather(*tasks) == expected


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    random_models.make_base(folder)
    random_models.make_lora(folder, folder / "a", seed=1)
    random_models.make_lora(folder, folder / "dora", seed=2, use_dora=True)
    return folder


def load(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base)


@pytest.mark.filterwarnings("ignore::FutureWarning")
async def test_a_fault_ends_its_own_rows_and_no_others(
    engines: Any, base: Path, monkeypatch: pytest.MonkeyPatch
):
    from workers.serving.generation import GenerationFailed

    model = load(base)
    engine = engines(model)
    for name in ("a", "dora"):
        await asyncio.to_thread(engine.load, name, base / name)
    before = {name: await answer(engine, PROMPTS[0], 60, name) for name in ("", "a", "dora")}
    forward = model.forward

    def fail_on_long_prompts(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].shape[1] == len(PROMPTS[1]):
            raise RuntimeError("out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", fail_on_long_prompts)
    running = [asyncio.create_task(answer(engine, PROMPTS[0], 60, name)) for name in before]
    await asyncio.sleep(0.05)
    for name in ("a", "dora", ""):
        with pytest.raises(GenerationFailed, match="out of memory"):
            await answer(engine, PROMPTS[1], 5, name)
    assert dict(zip(before, await asyncio.gather(*running), strict=True)) == before
    # Nothing is left on the model that would trouble who comes later.
    monkeypatch.undo()
    for name, ids in before.items():
        assert await answer(engine, PROMPTS[0], 60, name) == ids


@pytest.mark.filterwarnings("ignore::FutureWarning")
async def test_health_is_503_until_the_model_works_again(
    engines: Any, base: Path, monkeypatch: pytest.MonkeyPatch
):
    import httpx2
    from tokenizers import Tokenizer

    from workers.serving.app import App, Settings
    from workers.serving.generation import Limits

    model = load(base)
    engine = engines(model)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    app = App(engine, tokenizer, lambda messages: "", Settings("base", Limits(256)))

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the device is gone")

    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://server") as client:
        assert (await client.get("/health")).status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(model, "forward", fail)
            failed = await client.post("/generate", json={"inputs": "x", "parameters": {}})
            assert failed.status_code == 424
            assert failed.json()["error_type"] == "generation"
            for _ in range(2):
                unhealthy = await client.get("/health")
                assert unhealthy.status_code == 503
                assert unhealthy.json() == {"error": "unhealthy", "error_type": "healthcheck"}
        assert (await client.get("/health")).status_code == 200
        engine.stop()
        assert (await client.get("/health")).status_code == 503


async def test_more_rows_than_a_batch_holds_wait_their_turn(engines: Any):
    from dataclasses import replace

    engine = engines(random_model("llama"))
    alone = [await answer(engine, ids) for ids in PROMPTS]
    engine._limits = replace(engine._limits, max_batch_size=2)
    assert await asyncio.gather(*(answer(engine, ids) for ids in PROMPTS * 3)) == alone * 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["up_proj"], "use_rslora": True, "r": 3},
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 4}},
        {"target_modules": ["o_proj"], "lora_bias": True, "init_lora_weights": True},
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    ],
)
async def test_adapters_of_every_make_beside_a_plain_one_equal_peft(
    engines: Any, base: Path, tmp_path: Path, options: dict[str, Any]
):
    from peft import PeftModel

    random_models.make_lora(base, tmp_path, seed=5, **options)
    alone = PeftModel.from_pretrained(load(base), tmp_path).eval()
    prompt = torch.tensor([PROMPTS[0]])
    output = alone.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=1,
    )
    engine = engines(load(base))
    plain = await answer(engine, PROMPTS[0], 20)
    await asyncio.to_thread(engine.load, "a", base / "a")
    other = await answer(engine, PROMPTS[0], 20, "a")
    await asyncio.to_thread(engine.load, "made", tmp_path)
    together = await asyncio.gather(
        *(answer(engine, PROMPTS[0], 20, name) for name in ("made", "", "a"))
    )
    assert together == [output[0, prompt.shape[1] :].tolist(), plain, other]
    await asyncio.to_thread(engine.unload, "made")
    assert await answer(engine, PROMPTS[0], 20) == plain
    assert await answer(engine, PROMPTS[0], 20, "a") == other


@pytest.mark.filterwarnings("ignore")
async def test_a_first_adapter_that_fails_half_way_leaves_the_base_as_it_was(
    engines: Any, base: Path, tmp_path: Path
):
    import json
    import shutil

    from workers.serving.generation import CannotLoad

    shutil.copytree(base / "a", tmp_path / "half")
    config = tmp_path / "half" / "adapter_config.json"
    described = json.loads(config.read_text())
    targets = [*described["target_modules"], "input_layernorm"]
    config.write_text(
        json.dumps({**described, "target_modules": targets, "init_lora_weights": False})
    )
    engine = engines(load(base))
    plain = await answer(engine, PROMPTS[0])
    with pytest.raises(CannotLoad, match="does not fit"):
        await asyncio.to_thread(engine.load, "half", tmp_path / "half")
    assert await answer(engine, PROMPTS[0]) == plain
    assert not [n for n, _ in engine._model.named_modules() if "lora" in n]
    await asyncio.to_thread(engine.load, "a", base / "a")
    assert await answer(engine, PROMPTS[0], adapter="a") != plain


@pytest.mark.filterwarnings("ignore")
async def test_eight_requests_to_three_adapters_and_the_base_are_one_batch(
    engines: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import threading

    model = load(base)
    engine = engines(model)
    for seed, name in enumerate("xyz", start=21):
        folder = random_models.make_lora(base, tmp_path / name, seed=seed)
        await asyncio.to_thread(engine.load, name, folder)
    asked = [(PROMPTS[i % 4], name) for i, name in enumerate(["", "x", "y", "z"] * 2)]
    alone = [await answer(engine, ids, 40, name) for ids, name in asked]
    sizes: list[int] = []
    forward = model.forward

    def count_rows(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", count_rows)
    gate = threading.Event()
    held = engine._call(gate.wait)  # until all eight have arrived
    tasks = [asyncio.create_task(answer(engine, ids, 40, name)) for ids, name in asked]
    await asyncio.sleep(0.05)
    gate.set()
    assert await asyncio.gather(*tasks) == alone
    assert held.result()
    assert sizes[0] == 8
    assert len(sizes) == max(map(len, alone)), "one pass a token for all rows together"
