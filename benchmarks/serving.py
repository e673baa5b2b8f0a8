"""Measure the model server: requests at once against the same requests one after the other.

`script/bench serving [--requests 8] [--tokens 64] [--rounds 3] [--shapes 256x4 512x8] [--save]`: a
random Llama of each shape (hidden size x layers) and three adapters are written to a temporary
folder and served by a process of their own; the requests go to the base and the adapters in turns,
greedily. Answers must be the same both ways. The speeds are tokens a second over all requests;
`ratio` is the gain of sharing a batch, the median over the rounds.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from benchmarks import installation, random_models

PROMPTS = (
    "The glacier melts in late summer.",
    "Question: who keeps the keys? Answer:",
    "0123456789 + - * /",
    "the river below it rises by two metres, and the caretaker sees it from the north tower",
)


@contextmanager
def served(hidden: int, layers: int, threads: int, device: str) -> Iterator[httpx2.Client]:
    """Serve a random base with the adapters a, b and c; yields a client."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = random_models.make_base(folder / "base", hidden=hidden, layers=layers, context=2048)
        for seed, adapter in enumerate("abc", start=1):
            random_models.make_lora(base, folder / adapter, seed=seed, r=16, lora_alpha=32)
        listed = ",".join(f"{adapter}={folder / adapter}" for adapter in "abc")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "workers.model_server", str(base), "--port", str(port)),
                *("--lora-adapters", listed, "--threads", str(threads), "--device", device),
            ],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            with httpx2.Client(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=600
            ) as client:
                _wait(client, process)
                yield client
        finally:
            process.terminate()
            process.wait()


def _wait(client: httpx2.Client, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx2.ConnectError:
            time.sleep(0.1)
    raise SystemExit("The model server did not start.")


def ask(client: httpx2.Client, number: int, tokens: int) -> list[int]:
    """Return the token ids of one answer."""
    adapter = (None, "a", "b", "c")[number % 4]
    parameters = {"max_new_tokens": tokens, "details": True, "adapter_id": adapter}
    body = {"inputs": PROMPTS[number // 4 % len(PROMPTS)], "parameters": parameters}
    answer: Any = client.post("/generate", json=body).raise_for_status().json()
    return [token["id"] for token in answer["details"]["tokens"]]


def measure(client: httpx2.Client, requests: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Time both ways in turns; gives medians over the rounds."""
    ask(client, 0, 4)
    ask(client, 1, 4)
    alone, together, same = [], [], True
    with ThreadPoolExecutor(requests) as pool:
        for _ in range(rounds):
            one_by_one, speed = _timed(lambda: [ask(client, n, tokens) for n in range(requests)])
            alone.append(speed)
            at_once, speed = _timed(
                lambda: list(pool.map(lambda n: ask(client, n, tokens), range(requests)))
            )
            together.append(speed)
            same = same and one_by_one == at_once
    ratios = [b / a for a, b in zip(alone, together, strict=True)]
    return {
        "requests": requests,
        "tokens": tokens,
        "one_at_a_time_tokens_s": round(statistics.median(alone), 1),
        "at_once_tokens_s": round(statistics.median(together), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_lowest": round(min(ratios), 2),
        "same_tokens": same,
    }


def _timed(run: Any) -> tuple[list[list[int]], float]:
    """Return the answers and their speed in tokens a second."""
    begun_at = time.perf_counter()
    answers: list[list[int]] = run()
    return answers, sum(map(len, answers)) / (time.perf_counter() - begun_at)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="script/bench serving")
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", default=["256x4", "512x8"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    rows = []
    for shape in options.shapes:
        hidden, layers = map(int, shape.split("x"))
        with served(hidden, layers, options.threads, options.device) as client:
            row = measure(client, options.requests, options.tokens, options.rounds)
        rows.append({"hidden": hidden, "layers": layers, **row})
        print(json.dumps(rows[-1]))
    result = {
        "device": options.device,
        "threads": options.threads,
        "adapters": 3,
        "rows": rows,
    }
    if options.save:
        installation.save("serving", result)


if __name__ == "__main__":
    main()
