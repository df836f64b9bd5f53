"""Processes that begin warm: forks of one Python that has loaded all that the commands load, which takes seconds.

This file is both ends. `python warm.py --serve SOCKET` loads everything and forks. `python -I -S warm.py SOCKET WORDS`
is what a test starts in place of `python WORDS` (`-c code` or a file): it takes milliseconds, hands its folder,
environment and standard streams to a fork, sends on the signals that it gets, and ends as the fork does. Where it is
killed, the fork is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

_SENT_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(path: str, words: list[str]) -> NoReturn:
    """Have a fork of the Python behind a socket do what `python WORDS` does, and end as it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SENT_ON)  # until they can be sent on
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        asked = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(server, [len(asked).to_bytes(4)], [0, 1, 2])
        server.sendall(asked)
        for signum in _SENT_ON:
            signal.signal(signum, lambda signum, frame: server.sendall(bytes([signum])))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SENT_ON)
        code = int.from_bytes(server.recv(2), signed=True)
    if code < 0:
        if -code in _SENT_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(path: str) -> NoReturn:
    """Load everything and serve those who `start`; ends by a signal alone."""
    import selectors

    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen()
        _load()
        woken, wake = socket.socketpair()
        woken.setblocking(False), wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(wake.fileno())
        selector.register(listener, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        forks: dict[int, socket.socket] = {}
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    client, _ = listener.accept()
                    pid = _fork(client)
                    forks[pid] = client
                    selector.register(client, selectors.EVENT_READ, pid)
                elif key.fileobj is woken:
                    woken.recv(4096)
                elif key.data in forks:  # which ends in a moment where its client is gone
                    _send_on(forks[key.data], key.data, selector)
            for pid, status in _ended(forks):
                client = forks.pop(pid)
                if client in selector.get_map():
                    selector.unregister(client)
                _tell(client, os.waitstatus_to_exitcode(status))


def _load() -> None:
    import gc
    import importlib
    import pkgutil

    from layerwise.commandline import prepare_process

    prepare_process()
    for package in ("layerwise", "probes", "analysis", "figures"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    for name in ("torch._dynamo", "torchvision", "sklearn.datasets", "scipy.stats", "rich.progress",
                 "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg"):  # fmt: skip
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a fork's collector copies nothing


def _send_on(client: socket.socket, pid: int, selector: object) -> None:
    """Send a fork the signals that its client got; a client that was killed takes it along."""
    signals = client.recv(64)
    for signum in signals or [signal.SIGKILL]:
        os.kill(pid, signum)
    if not signals:
        selector.unregister(client)  # type: ignore[attr-defined]


def _ended(forks: dict[int, socket.socket]) -> list[tuple[int, int]]:
    found = []
    while forks and (ended := os.waitpid(-1, os.WNOHANG))[0]:
        found.append(ended)
        if len(found) == len(forks):
            break
    return found


def _tell(client: socket.socket, code: int) -> None:
    with client, suppress(OSError):  # it was killed
        client.sendall(code.to_bytes(2, signed=True))


def _fork(client: socket.socket) -> int:
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    asked = b""
    while len(asked) < int.from_bytes(size):
        asked += client.recv(65536)
    if pid := os.fork():
        for stream in streams:
            os.close(stream)
        return pid
    _be(*json.loads(asked), streams)


def _be(words: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> NoReturn:
    """Become `python WORDS`."""
    import atexit
    import random
    import threading
    import traceback

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1024)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    code = 1
    try:
        _run(words)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for output in (sys.stdout, sys.stderr):
        output.flush()
    os._exit(code & 0xFF)


def _run(words: list[str]) -> None:
    import runpy
    import types

    import torch

    if threads := os.environ.get("OMP_NUM_THREADS"):  # which was read when torch was loaded
        torch.set_num_threads(int(threads))
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path and path not in sys.path]
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = words
        sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1] == "--serve" else start(sys.argv[1], sys.argv[2:])
