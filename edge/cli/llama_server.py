"""A real llama.cpp server (the wheel ``xllamacpp``) as a process of its own.

In: a GGUF file. Out: ``python -m edge.cli.llama_server MODEL PORT`` serves it on loopback and prints one line,
``ready http://127.0.0.1:PORT``, once it answers; ``LlamaServer`` starts that process and ends it.
Must not: load ``xllamacpp`` into any process but the server's own.
"""

import argparse
import importlib.util
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edge.cli.child import Child, Unavailable

MODEL_NAME = "smollm2"
START_S = 120.0  # a cold disk and a busy machine; usually about a second
POLL_S = 0.05
MOST_THREADS = 4  # a model this small gets no faster with more
WARNINGS = 2  # llama.cpp's verbosity: errors and warnings
_READY = "ready "


class LlamaServer(Child):
    """The server's process, as a context manager; ``url`` is there once it is ready.

    Args:
        model: The GGUF file.
        log: The file that takes its output.
        parallel: How many requests it works on at once.
        ctx: Tokens of context, shared by those.
        embedding: Serve ``/v1/embeddings`` too.
    """

    def __init__(self, model: Path, log: Path, *, parallel: int = 2, ctx: int = 4096, embedding: bool = False) -> None:
        options = ["--parallel", str(parallel), "--ctx", str(ctx), *(["--embedding"] if embedding else [])]
        module = [sys.executable, "-m", "edge.cli.llama_server"]
        super().__init__("the model server", [*module, str(model), "0", *options], log)
        self._url: str | None = None

    @staticmethod
    def need() -> None:
        """Return if the server is installed.

        Raises:
            Unavailable: It is not.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise Unavailable("the model server is not installed: pip install 'edge-relay[demo]'")

    @property
    def url(self) -> str:
        """Its base address, without ``/v1``."""
        if self._url is None:
            raise RuntimeError("the model server is not ready")
        return self._url

    def is_ready(self) -> bool:
        """Whether it answers.

        Raises:
            Died: It never will.
        """
        if self._url is None:
            self.check()
            for line in self.said().splitlines(keepends=True):
                if line.startswith(_READY) and line.endswith("\n"):
                    self._url = line.removeprefix(_READY).strip()
        return self._url is not None

    def wait_ready(self, within_s: float = START_S) -> None:
        """Block until it answers.

        Raises:
            Died: It ended.
            Unavailable: It took too long.
        """
        deadline = time.monotonic() + within_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise Unavailable(f"the model server was not ready within {within_s:.0f} s. It said:\n{self.tail()}")
            time.sleep(POLL_S)


def _params(options: argparse.Namespace) -> Any:
    import xllamacpp  # noqa: PLC0415 - an extra, and 40 MB: only here

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_ctx = options.ctx
    # Its threads spin until all have done their part: where they took every core, one busy neighbour cost two thirds of
    # the speed, and several nearly all of it (100 tokens/s became 34, then 1). So one core stays free.
    params.cpuparams.n_threads = max(1, min(MOST_THREADS, (os.cpu_count() or 1) - 1))
    params.use_jinja = params.endpoint_metrics = params.endpoint_slots = True
    params.verbosity = WARNINGS
    if options.embedding:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


def _end_with_stdin() -> None:
    """End when stdin does: whoever started us through a pipe is gone."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve until SIGTERM, SIGINT, or the end of a stdin that is a pipe."""
    parser = argparse.ArgumentParser(prog="python -m edge.cli.llama_server", description="a real llama.cpp server")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("port", type=int, help="0 for a free one")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--ctx", type=int, default=4096)
    parser.add_argument("--embedding", action="store_true")
    options = parser.parse_args()
    # The server works in threads that never look at Python's handlers, and has nothing to save: end at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_stdin, daemon=True).start()

    import xllamacpp  # noqa: PLC0415 - as above

    server = xllamacpp.Server(_params(options))  # returns when the model is loaded and the port listens
    print(f"{_READY}{server.listening_address}", flush=True)  # noqa: T201 - the one line it says
    threading.Event().wait()


if __name__ == "__main__":
    main()
