"""A Python that has imported the libraries already: a server that runs each program in a fork of itself.

Importing PyTorch, transformers and TRL takes most of the time of a short program. Each program is still a process of
its own, with its own arguments, folder, environment and exit code, and it imports this project's modules itself. What
the libraries read from the environment when they are imported is the server's. As in PyTorch's DataLoader, forking is
safe: importing starts no threads.

    python -P warm_python.py FOLDER                       # the server; -P: the modules beside this file are not its own
    FOLDER/python FILE | -m MODULE | -c CODE [ARGUMENT ...]   # a program
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path

LIBRARIES = (
    "datasets",
    "hydra",
    "peft",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "trl.trainer.grpo_trainer",
    "trl.trainer.sft_trainer",
)
MOST_BYTES = 200_000  # of a program's arguments and environment


def serve(folder: Path) -> None:
    """Writes FOLDER/python and runs its programs, until the standard input ends as the tests' process does."""
    for library in LIBRARIES:
        __import__(library)
    gc.freeze()  # or every program's end would look through all of the libraries' objects
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {folder} "$@"\n')
    python.chmod(0o755)
    sys.executable = str(python)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(folder / "socket"))
        server.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
            with server.accept()[0] as client:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    server.close()
                    return answer(client)


def answer(client: socket.socket) -> None:
    """Runs a client's program in a fork, and sends its exit code."""
    message, files, *_ = socket.recv_fds(client, MOST_BYTES, 3)
    arguments, folder, environment = json.loads(message)
    if program := os.fork():
        _, status = os.waitpid(program, 0)
        client.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    client.close()
    for place, file in enumerate(files):  # standard input, output and error
        os.dup2(file, place)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    option, *rest = arguments
    path = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if option == "-c":
        sys.path[:0], sys.argv = ["", *path], ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    elif option == "-m":
        sys.path[:0], sys.argv = [folder, *path], rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[:0], sys.argv = [str(Path(option).resolve().parent), *path], arguments
        runpy.run_path(option, run_name="__main__")


def ask(folder: Path, arguments: list[str]) -> int:
    """Has the server run a program with this process's folder, environment and files; returns its exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(str(folder / "socket"))
        message = json.dumps([arguments, str(Path.cwd()), dict(os.environ)])
        socket.send_fds(server, [message.encode()], [0, 1, 2])
        return int(server.recv(16) or 1)  # nothing: the server has ended


if __name__ == "__main__":
    if sys.argv[2:]:
        raise SystemExit(ask(Path(sys.argv[1]), sys.argv[2:]))
    serve(Path(sys.argv[1]))
