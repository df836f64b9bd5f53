"""The report of a study, or of run files, as Python makes it; the command writes what this returns."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from figures import output
from figures.file_set import write
from figures.page.given import read_given
from figures.page.limit import within
from figures.page.render import html
from figures.page.sections import page_of
from layerwise.runfile.given import Runs, paths_of
from layerwise.spoken import python_call

SUFFIXES = (".html",)


@python_call("separability-report")
def separability_report(runs: Runs, *, out: Path | str | None = None, force: bool = False) -> str:
    """Return the report of a study, or of run files, as one page of HTML that needs no other file and no network.

    Args:
        runs: the folder of a study, or probed run files on the same images, by their paths or open.
        out: a name for report.html; None writes nothing. force: whether it is replaced.

    Raises UserError for a folder that is no study or has no complete greedy network, and for runs that were not probed
    or are of different images.
    """
    paths = paths_of(runs)
    target = None if out is None else target_of(Path(out), paths, force)
    text = page_text(paths)
    if target is not None:
        write({target: text.encode()}, force)
    return text


def target_of(out: Path, inputs: list[Path], force: bool) -> Path:
    """Return where the page goes; refuse, before anything is read, a name that cannot be written."""
    return output.outputs(out, inputs, force, SUFFIXES, "report")[".html"]


def page_text(paths: Sequence[Path]) -> str:
    """Return the page of a study's folder or of run files, with what is warned of in the making."""
    with _remarked() as remarks:
        page = within(replace(page_of(read_given(paths)), remarks=remarks))
    return html(page)


@contextmanager
def _remarked() -> Iterator[list[str]]:
    """Yield the list that every warning of the block goes to, beside where it goes anyway: a reader needs it too.

    What several figures and tables of the block say is said once.
    """
    found: list[str] = []

    def is_new(record: logging.LogRecord) -> bool:
        return record.getMessage() not in found

    log, own = logging.getLogger("layerwise"), logging.Handler(logging.WARNING)
    own.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    others = list(log.handlers)
    for handler in (*others, own):
        handler.addFilter(is_new)
    log.addHandler(own)  # the last, so that the others have heard what it finds known from then on
    try:
        yield found
    finally:
        log.removeHandler(own)
        for handler in others:
            handler.removeFilter(is_new)
