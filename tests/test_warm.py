"""Processes that begin warm do and end as those of a Python of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest


def begun(warm: list[str], code: str, *words: str, **options: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*warm, "-c", code, *words], stdout=pipe, stderr=pipe, text=True, **options)  # type: ignore


def test_words_folder_environment_and_exit_code_are_the_callers(warm: list[str], tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), sys.argv, os.environ['A'], 'HOME' in os.environ); sys.exit(3)"
    with begun(warm, code, "x", cwd=tmp_path, env={"A": "b"}) as process:
        assert process.communicate() == (f"{tmp_path} ['-c', 'x'] b False\n", "")
    assert process.returncode == 3


def test_an_error_is_a_traceback(warm: list[str]) -> None:
    with begun(warm, "1 / 0") as process:
        assert process.communicate()[1].endswith("ZeroDivisionError: division by zero\n")
    assert process.returncode == 1


SLEEP = """
import os, time
try:
    print(os.getpid(), flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("signum", "said", "code"),
    [(signal.SIGINT, "interrupted\n", 0), (signal.SIGTERM, "", -signal.SIGTERM), (signal.SIGKILL, "", -signal.SIGKILL)],
)
def test_a_signal_to_the_one_is_one_to_the_other(warm: list[str], signum: int, said: str, code: int) -> None:
    with begun(warm, SLEEP) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signum)
        assert process.communicate()[0] == said
    assert process.returncode == code
    with pytest.raises(ProcessLookupError):
        for _ in range(1000):
            os.kill(pid, 0)
            signal.sigtimedwait([], 0.01)
