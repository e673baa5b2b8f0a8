"""Merge an adapter into its base, as a model of its own, for servers that cannot load it. No Django.

    python -m finetune.merging BASE ADAPTER OUT [--dtype float32]

Folders know neither whether the adapter passed its evaluation nor for whom it is: a merged model
answers everybody by what it learned. `manage.py merge_adapter` asks the database, and refuses. Either
way the folder carries what was asked, in its manifest and its card.

Merged in fp32, written in bf16 unless told, with the key names that transformers 4 reads beside
today's: TGI's last release would otherwise refuse the tokenizer and lose the rope settings without a
word. What was written is loaded again, must ask as training did and answer as the adapter did.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from finetune import bases, chat_templates, checkpoints, contract, probe, reference

# How far log-probabilities may move, in nats: a rounding of weights to 8 bits of mantissa shifts them.
TOLERANCE = {"bfloat16": 0.25, "float32": 1e-3}
CARD = "README.md"
# `passed` is None where nobody asked; `against`: what the gate said.
NOT_ASKED: dict[str, Any] = {"gate": {"passed": None, "against": []}}
OTHER_TEMPLATE = (
    "The base's chat template is not the one that the adapter was trained with. Take the base as it"
    " was then."
)


class CannotMerge(Exception):
    """This adapter cannot become part of its base; a sentence."""


@dataclass(frozen=True, slots=True)
class Merged:
    """`distance`: the largest difference of a token's log-probability to the adapter's, in nats."""

    folder: Path
    distance: float
    asked: int


def merge(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    dtype: str = "bfloat16",
    about: Mapping[str, Any] | None = None,
) -> Merged:
    """Write the merged model to `out`, whole or not at all, once it has proved to be the same.

    `about` goes into its manifest, beside what it was made of; with `gate` as in NOT_ASKED. Raises
    CannotMerge, also when the re-test fails.
    """
    if out.exists():
        raise CannotMerge(f"{out} exists already.")
    kind = json.loads((adapter / contract.CONFIG).read_text()).get("peft_type")
    if kind != "LORA":
        raise CannotMerge(
            f"Only LoRA and DoRA can be merged; a {kind} adapter puts tokens before the prompt. "
            "Our own model server serves it."
        )
    asked = probe.Reference.read(adapter)
    tokenizer = _tokenizer(base, adapter)
    made_of = {
        "base": str(base),
        "adapter": adapter.name,
        "dtype": dtype,
        "template_sha256": chat_templates.fingerprint(tokenizer.chat_template),
    }
    told = {**(about or NOT_ASKED), **made_of}
    distance = 0.0

    def write(aside: Path) -> None:
        nonlocal distance
        _write(base, adapter, tokenizer, aside, dtype)
        (aside / CARD).write_text(card(out.name, told))
        _check_prompts(aside, asked)
        distance = _distance(aside, asked)
        if distance > TOLERANCE[dtype]:
            raise CannotMerge(
                f"The merged model answers differently: {distance:.3f} nats apart, where "
                f"{TOLERANCE[dtype]:g} are allowed. Write it in float32."
            )

    checkpoints.publish(out, write, about=told)
    return Merged(out, distance, len(asked.samples))


def _tokenizer(base: Path, adapter: Path) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer with the template of the training. Raises CannotMerge."""
    try:
        tokenizer = bases.load_tokenizer(base)
    except bases.CannotRun as error:
        raise CannotMerge(str(error)) from error
    trained_with = (checkpoints.manifest_of(adapter) or {}).get("template_sha256")
    if trained_with not in (None, chat_templates.fingerprint(tokenizer.chat_template)):
        raise CannotMerge(OTHER_TEMPLATE)
    return tokenizer


def _write(
    base: Path, adapter: Path, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str
) -> None:
    plain = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    model = PeftModel.from_pretrained(plain, str(adapter), autocast_adapter_dtype=False)
    merged = model.merge_and_unload(safe_merge=True).to(getattr(torch, dtype))
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _amend(folder / "config.json", _older_keys(folder / "config.json", dtype))
    _amend(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": _older_form(tokenizer.chat_template),
        },
    )


def _older_keys(path: Path, dtype: str) -> dict[str, Any]:
    """Give what transformers 4 reads: it knows neither `dtype` nor `rope_parameters`."""
    rope = dict(json.loads(path.read_text()).get("rope_parameters") or {})
    older: dict[str, Any] = {"torch_dtype": dtype}
    if "rope_theta" in rope:
        older["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        older["rope_scaling"] = rope
    return older


def _older_form(template: Any) -> Any:
    """Give the list that transformers 4 reads where a base has several templates by their names."""
    if isinstance(template, str):
        return template
    return [{"name": name, "template": text} for name, text in template.items()]


def _amend(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}, indent=2) + "\n")


def _check_prompts(folder: Path, asked: probe.Reference) -> None:
    """Raise CannotMerge unless who reads the folder alone asks what the adapter was asked."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    for sample in asked.samples:
        rendered = tokenizer.apply_chat_template(list(sample.messages), add_generation_prompt=True)
        if tuple(rendered["input_ids"]) != sample.prompt_ids:
            raise CannotMerge(OTHER_TEMPLATE)


def _distance(folder: Path, asked: probe.Reference) -> float:
    """Ask the written model what the adapter was asked; infinite when it says something else."""
    chats = [sample.messages for sample in asked.samples]
    answers = reference.answer_alone(folder, chats, tokens=asked.tokens)
    pairs = zip(answers, asked.samples, strict=True)
    close = TOLERANCE["bfloat16"]
    return max(probe.distance(answer, sample.adapter, close) for answer, sample in pairs)


def card(name: str, about: Mapping[str, Any]) -> str:
    """Say what a merged model is made of, whether the gate was passed, and for whom it is. Markdown."""
    readers = ", ".join(each["name"] for each in about.get("audience", []))
    return "\n".join(
        [
            f"# {name}",
            "",
            f"`{about['base']}` with the adapter `{about['adapter']}` merged into it, in"
            f" {about['dtype']}. Nothing but a new merge changes it; `manifest.json` has the hashes.",
            "",
            "## The gate",
            "",
            _of_gate(about),
            "",
            "## Who may be served by it",
            "",
            f"Only people who may read all of: {readers}."
            if readers
            else "Only people who may read everything the adapter learned from.",
            "",
        ]
    )


def _of_gate(about: Mapping[str, Any]) -> str:
    gate = about.get("gate", NOT_ASKED["gate"])
    if gate["passed"] is None:
        return (
            "Not asked: it was merged from folders, which do not know whether the adapter passed its"
            " evaluation."
        )
    if gate["passed"]:
        return f"Passed, by evaluation {about['evaluation']}."
    against, why = " ".join(gate["against"]), about["override_reason"]
    return f"Not passed: {against} {about['merged_by']} merged it nevertheless: {why}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m finetune.merging")
    parser.add_argument("base", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="bfloat16")
    told = parser.parse_args()
    try:
        merged = merge(told.base, told.adapter, told.out, dtype=told.dtype)
    except (CannotMerge, probe.ProbeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{merged.folder} answers {merged.asked} questions as the adapter did.")
    print("Nobody asked whether the adapter passed its evaluation; its card says so, too.")
    print("Serve it only to people who may read everything the adapter learned from.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
