"""Runs `coat` in processes of their own that are forked where the imports are done: those take most of a short command.

A test starts one server, and then clients of it, which stand for `python -m MODULE ...` and `python -c CODE`:
arguments, folder, environment, and streams are the client's, and so is the exit status. A client passes SIGTERM on to
its command. What must be killed, or look at what is imported, is started by Python itself.

    python tests/command_server.py SOCKET                      serve
    python -S tests/command_server.py SOCKET -m coat ...       ask

Workers of pytest-xdist share one, which conftest.py starts.
"""

import atexit
import contextlib
import gc
import json
import os
import signal
import socket
import sys
import threading
import traceback
from typing import NoReturn

COMMAND_SERVER = "COAT_TESTS_COMMAND_SERVER"  # a variable with the socket's path
STREAMS = 3
MOST = 1 << 20  # bytes of a request
PID = 4  # bytes of a process's number


def start_command_server() -> str:
    """The socket's path: it is there some seconds later, and its folder as long as the server lives."""
    import shutil
    import subprocess
    import tempfile

    root, folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__))), tempfile.mkdtemp(prefix="coat-")
    path = os.path.join(folder, "s")
    environment = {**os.environ, "PYTHONPATH": root}
    server = subprocess.Popen([sys.executable, os.path.abspath(__file__), path], cwd=root, env=environment)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    return path


def ask(path: str, arguments: list[str]) -> int:
    """The exit status of a command that runs elsewhere, on our streams. 128 and more: a signal's."""
    request = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], list(range(STREAMS)))
        connection.sendall(request)
        process = int.from_bytes(connection.recv(PID), "big")
        signal.signal(signal.SIGTERM, lambda *_: os.kill(process, signal.SIGTERM))
        return int(connection.recv(16) or b"70")


def serve(path: str) -> None:
    """Until the process that started it is gone."""
    try:
        import_all()
    except BaseException:
        os.rmdir(os.path.dirname(path))
        raise
    gc.freeze()  # a collection in a child would copy every page
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen(16)
        listener.settimeout(1.0)
        os.rename(f"{path}.new", path)  # only now is it there
        while os.getppid() == parent:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                listener.close()
                connection.settimeout(None)
                handle(connection)
            connection.close()


def import_all() -> None:
    """What commands import. It must start no thread of torch's. Ray is not among it: a fork of it hangs."""
    import peft  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor  # noqa: F401

    import coat.cli.main
    import coat.pipeline
    import coat.pipeline.extraction.extraction
    import coat.pipeline.extraction.ray_runner
    import coat.pipeline.shards.build
    import coat.pipeline.store_checks.verification
    import coat.trainer
    import coat.trainer.training.train  # noqa: F401


def handle(connection: socket.socket) -> NoReturn:
    """In a process of its own: one command, in another one, whose status is told when it has ended."""
    size, streams, _, _ = socket.recv_fds(connection, 4, STREAMS)
    body = b""
    while len(body) < int.from_bytes(size, "big"):
        body += connection.recv(MOST)
    request = json.loads(body)
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        run(request["arguments"], request["folder"], request["environment"])
    for stream in streams:
        os.close(stream)
    connection.sendall(child.to_bytes(PID, "big"))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(status if status >= 0 else 128 - status).encode())
    os._exit(0)


def run(arguments: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """A command from its start to its end, which is Python's but for the freeing of all that was imported."""
    status: object = 0
    try:
        run_main(arguments, folder, environment)
    except SystemExit as e:
        status = e.code or 0
        if isinstance(status, str):
            print(status, file=sys.stderr)
    except Exception:  # noqa: BLE001 (Python prints it, too)
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 1)


def run_main(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    match arguments:
        case ["-m", "coat", *rest]:
            from coat.cli.main import main

            sys.argv = ["coat", *rest]
            main()
        case ["-u", *rest]:
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(write_through=True)  # type: ignore[union-attr]
            run_main(rest, folder, environment)
        case ["-m", module, *rest]:
            import runpy

            sys.path.insert(0, folder)
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *rest]:
            sys.path.insert(0, "")
            sys.argv = ["-c", *rest]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case _:
            raise ValueError(f"{arguments}: expected -m MODULE ... or -c CODE")


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
    serve(sys.argv[1])
