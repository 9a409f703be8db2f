"""Commands of ``edge``, each in a process of its own that is forked from one that has imported them already.

In: over a socket, arguments, an environment, a folder and where its output goes. Out: its exit status. Must not: carry
anything from one command to the next. A start of Python, and the imports, took 0.5 s for each of some hundred commands.
"""

import json
import os
import socket
import sys
from importlib import import_module
from pathlib import Path

import edge
from edge.cli import main

PRELOADED = ("check", "reload", "upgrade", "health", "keys", "usage", "store", "service")


def serve(wishes: socket.socket) -> None:
    """Run one command after the other, until nobody is there any more."""
    for name in PRELOADED:
        import_module(f"edge.cli.{name}")
    while True:
        data, files, _, _ = socket.recv_fds(wishes, 1 << 20, 2)
        if not data:
            return
        pid = os.fork()
        if pid == 0:
            wishes.close()
            run(**json.loads(data), files=files)
        for file in files:
            os.close(file)
        _, status = os.waitpid(pid, 0)
        wishes.send(str(os.waitstatus_to_exitcode(status)).encode())


def run(args: list[str], env: dict[str, str], cwd: str, files: list[int]) -> None:
    """The command, in the new process; ends it."""
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [str(Path(edge.__file__).with_name("__main__.py")), *args]  # as python -m edge has it
    main(prog_name="python -m edge")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
