"""A model server in TGI's dialect over transformers and PEFT, for development and small installs.

    python -m workers.model_server FOLDER --port 3000 --lora-adapters name=/path,other=/path

Serves the base model in FOLDER and any number of adapters, which can share a batch and come and go
at run time. Loads safetensors only and runs no code from a model's folder. docs/model-server.md
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn
from jinja2 import TemplateError

from finetune import chat_templates
from workers.serving import app, bodies
from workers.serving.generation import CannotLoad, Limits

logger = logging.getLogger("model_server")
LONGEST_CONTEXT = 8192  # where neither an option nor the model says less
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main() -> None:
    options = parse()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level="INFO")
    if Path(options.model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers reads it
    try:
        serve(options)
    except CannotLoad as error:
        sys.exit(str(error))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workers.model_server", description="Serve a base model and its adapters."
    )
    parser.add_argument("model", help="folder of the base model, or its name on the hub")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", default=3000, type=int, help="port to listen on (3000)")
    parser.add_argument(
        "--lora-adapters", default="", help="adapters to load at the start: name=/path,name=/path"
    )
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16")
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (auto)")
    parser.add_argument("--threads", default=0, type=int, help="processor threads (as torch likes)")
    parser.add_argument(
        "--api-key",
        default=os.environ.get("API_KEY", ""),
        help="what clients must send as a bearer token (the variable API_KEY)",
    )
    parser.add_argument("--max-total-tokens", type=int, help="prompt and answer together")
    parser.add_argument("--max-concurrent-requests", type=int, default=128)
    parser.add_argument(
        "--max-batch-size", type=int, default=32, help="rows computed together (32)"
    )
    parser.add_argument("--graceful-timeout-s", type=int, default=90, help="for running answers")
    parser.add_argument(
        "--silent-fallback",
        action="store_true",
        help="answer unknown adapters with the base model, as TGI does; to test what trusts names",
    )
    return parser.parse_args(arguments)


def serve(options: argparse.Namespace) -> None:
    """Load, listen, and on SIGTERM end the running answers before leaving."""
    # transformers takes seconds to import, which --help need not wait for.
    from workers.serving import loading

    if options.threads:
        loading.use_threads(options.threads)
    model, tokenizer = loading.load_base(options.model, options.device, options.dtype)
    limits = Limits(
        max_total_tokens=loading.context_length(model, options.max_total_tokens or LONGEST_CONTEXT),
        max_concurrent_requests=options.max_concurrent_requests,
        max_batch_size=options.max_batch_size,
    )
    engine = loading.make_engine(model, tokenizer, limits)
    engine.start()
    for name, folder in named_folders(options.lora_adapters):
        engine.load(name, folder)
    settings = app.Settings(
        model_id=options.model,
        limits=limits,
        compute_type=model.device.type,
        api_key=options.api_key,
        may_load=bool(options.api_key) or options.host in LOOPBACK,
        silent_fallback=options.silent_fallback,
    )
    application = app.App(engine, tokenizer.backend_tokenizer, template_of(tokenizer), settings)
    try:
        listen(application, options)
    finally:
        engine.stop()


def named_folders(listed: str) -> list[tuple[str, Path]]:
    """Read TGI's list of local adapters: "a=/x,b=/y". Raises CannotLoad."""
    pairs = [item.partition("=") for item in listed.split(",") if item]
    for name, _, folder in pairs:
        if not folder or not app.is_adapter_name(name):
            raise CannotLoad(f"“{name}={folder}” is not name=/path.")
    return [(name, Path(folder)) for name, _, folder in pairs]


def template_of(tokenizer: Any) -> bodies.Template:
    """Return the function that renders messages as the model was taught, on the day of training."""
    tokenizer.chat_template = chat_templates.on_one_day(tokenizer.chat_template)

    def render(messages: list[bodies.Json]) -> str:
        if not tokenizer.chat_template:
            raise bodies.Refused("Template error: template not found", "template_error")
        try:
            text: str = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise bodies.Refused(f"Template error: {error}", "template_error") from error
        return text

    return render


def listen(application: app.App, options: argparse.Namespace) -> None:
    config = uvicorn.Config(
        application,
        host=options.host,
        port=options.port,
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=options.graceful_timeout_s,
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
