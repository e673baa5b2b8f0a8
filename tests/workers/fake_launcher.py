"""text-generation-launcher for tests: takes its options and runs our model server as TGI behaves.

Adapters named in the file that FAKE_LAUNCHER_FORGETS names are dropped without a word, as TGI drops
what it cannot place; with FAKE_LAUNCHER_BREAKS it ends with code 3 when one of those is listed,
or always when it says "always".
"""

import argparse
import json
import os
import sys
from pathlib import Path


def names_in(variable: str) -> set[str]:
    path = Path(os.environ.get(variable, "/nowhere"))
    return set(path.read_text().split()) if path.is_file() else set()


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model-id", required=True)
    parser.add_argument("--hostname", required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--dtype", required=True, choices=["bfloat16"])
    parser.add_argument("--usage-stats", required=True, choices=["off"])
    parser.add_argument("--lora-adapters", default="")
    parser.add_argument("--tokenizer-config-path", required=True, type=Path)
    options = parser.parse_args()
    listed = [item for item in options.lora_adapters.split(",") if item]
    assert json.loads(options.tokenizer_config_path.read_text())["chat_template"]
    if names_in("FAKE_LAUNCHER_BREAKS") & {"always", *(i.partition("=")[0] for i in listed)}:
        sys.exit(3)
    forgotten = names_in("FAKE_LAUNCHER_FORGETS")
    kept = [item for item in listed if item.partition("=")[0] not in forgotten]
    os.execv(
        sys.executable,
        [
            *(sys.executable, "-m", "workers.model_server", options.model_id, "--silent-fallback"),
            *("--host", options.hostname, "--port", options.port, "--threads", "1"),
            # The processor of a test computes exactly, so that the probe can be strict.
            *("--dtype", "float32", "--lora-adapters", ",".join(kept)),
        ],
    )


if __name__ == "__main__":
    main()
