"""The progress of a call under a notebook's cell: one line that is replaced, and gone at the end; or none, if quiet."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import nbclient
import nbformat
import pytest

from layerwise import notebook
from layerwise.commandline import heard, progress


class Shell:
    """IPython's, in a notebook: its number of the running cell, and what is displayed under it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **has: Any):
        self.shown: list[str] = []
        self.state = SimpleNamespace(execution_count=1, **has)
        display = SimpleNamespace(HTML=str, DisplayHandle=lambda: self)
        package = SimpleNamespace(__name__="FakePython", get_ipython=lambda: self.state)
        monkeypatch.setitem(notebook.sys.modules, "IPython", package)  # type: ignore[arg-type]
        monkeypatch.setitem(notebook.sys.modules, "FakePython.display", display)  # type: ignore[arg-type]
        monkeypatch.setattr(notebook, "_EVERY", 0.0)
        monkeypatch.setattr(notebook, "_lines", {})
        monkeypatch.setattr("logging.root.handlers", [])

    def display(self, text: str) -> None:
        self.shown.append(f"new: {text}")

    def update(self, text: str) -> None:
        self.shown.append(text)


def work() -> None:
    for depth in (1, 2):
        with progress() as bar:
            task = bar.add_task(f"depth <{depth}>", total=2)
            bar.advance(task)
            bar.update(task, advance=1, description="done")


def test_the_bars_of_a_cell_are_one_line_that_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(monkeypatch, kernel=1)
    with heard():
        work()
    first, second, *_ = shell.shown
    assert first.startswith("new: <div>depth &lt;1&gt; <progress value='1' max='2'></progress> 1 of 2")
    assert second.startswith("<div>done <progress value='2' max='2'>")
    assert [text[:4] for text in shell.shown] == ["new:", "<div", "", "<div", "<div", ""]
    assert capsys.readouterr() == ("", "")
    shell.state.execution_count = 2
    with heard():
        work()
    assert sum(text.startswith("new:") for text in shell.shown) == 2


@pytest.mark.parametrize("has", [{"kernel": 1}, {}])
def test_it_can_be_silenced_and_is_of_notebooks_alone(monkeypatch: pytest.MonkeyPatch, has: dict[str, int]) -> None:
    shell = Shell(monkeypatch, **has)
    with heard(quiet=bool(has)):
        work()
    assert shell.shown == []


def test_a_notebook_that_is_run_shows_it_without_warnings() -> None:
    code = (
        "import time\nfrom layerwise.commandline import heard, progress\n"
        "with heard(), progress() as bar:\n"
        "    task = bar.add_task('depth 1', total=3)\n"
        "    for _ in range(3):\n        time.sleep(0.3)\n        bar.advance(task)\n"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    done = nbclient.NotebookClient(book, timeout=100, kernel_name="python3").execute()
    kinds = [output["output_type"] for output in done.cells[0]["outputs"]]
    assert kinds == ["display_data"], json.dumps(done.cells[0]["outputs"])
