"""The report: its numbers are those of the tables, its text is whole and safe, and a browser finds nothing amiss."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import analysis
import figures
import layerwise
import probes
from analysis.best_depth import best_depths
from analysis.separability import curves
from figures.commands.report import separability_report
from figures.kit.table import Table
from figures.page import summary
from figures.page.limit import MOST, within
from figures.page.numbers import networks
from figures.page.render import html, numeric
from figures.page.sections import Page
from figures.study.budgets import asked
from layerwise.commandline import call
from layerwise.runfile import RunFile
from probes.results.table import table_path
from tests import browser
from tests.conftest import make_run
from tests.images_reference import keep, made_up
from tests.probe_rows import run_rows, table

VOID = {"meta", "link", "br", "img"}
NASTY = "<script>alert('1')</script> & \"k\" --> ]]>"


class Read(HTMLParser):
    """A page as it is parsed: elements that are open, ids, what is asked of elsewhere, the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.asked: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, given)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        attributes = dict(given)
        assert len(attributes) == len(given)
        self.seen[tag] += 1
        self.ids.update([attributes["id"]] if "id" in attributes else [])
        self.asked += [str(attributes[name]) for name in ("src", "href", "action", "srcset") if name in attributes]
        self.asked += re.findall(r"url\(([^)]*)\)", " ".join(str(value) for value in attributes.values()))
        assert not any(name.startswith("on") for name in attributes)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += text.replace("\N{NO-BREAK SPACE}", " ")


def checked(text: str) -> Read:
    """Return a page that is whole, small, and asks for nothing outside itself."""
    found = Read(text)
    assert [name for name, count in found.ids.items() if count > 1] == []
    outside = [one for one in found.asked if not one.startswith(("#", "data:"))]
    assert outside == ["https://arxiv.org/abs/1812.11446"]  # a link to click
    assert {one[1:] for one in found.asked if one.startswith("#")} <= set(found.ids)
    assert not re.search(r"@import|url\(", text.partition("<style>")[2].partition("</style>")[0])
    assert len(text.encode()) < MOST
    assert (found.seen["h1"], found.seen["title"] > 0, found.seen["main"], found.seen["script"]) == (1, True, 1, 1)
    assert found.seen["caption"] == found.seen["table"] > 0
    return found


def probed(path: Path, values: list[float]) -> Path:
    """Put made-up results of a linear probe beside a run, a value for each depth; on the fold depth 1 is the best."""
    with RunFile(path) as run:
        assert run.config is not None
        net = run.config.network
        about = {"run_id": run.run_id, "mode": run.config.mode, "k": net.k, "width": net.width, "blocks": net.depth}
        about |= {"aux_width": net.aux_width, "n_samples": len(run.labels("test"))}
    rows = run_rows(values, **about) + run_rows([0.95], pooling=0, **about)
    fold = [0.0, 0.999, *values[2:]]
    rows += [row | {"split": "validation", "refit": 0} for row in run_rows(fold, **about)]
    pd.DataFrame(rows).to_csv(table_path(path), index=False)
    return path


@pytest.fixture(scope="module")
def runs(run_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a greedy run and an untrained one with made-up results, predictions of the first; tests only read them."""
    folder = tmp_path_factory.mktemp("runs")
    found = [Path(shutil.copy(run_path, folder / "run.h5")), make_run(folder / "other.h5", mode="untrained")]
    for path, values in zip(found, ([0.5, 0.9, 0.93], [0.5, 0.85, 0.8]), strict=True):
        probed(path, values)
    with RunFile(found[0]) as run:
        keep(run, made_up(run))
    return found


@pytest.fixture(scope="module")
def made(runs: list[Path]) -> tuple[Page, str]:
    """Return the page of the runs before its size is looked at, and its text."""
    kept = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("figures.page.api.within", lambda page: kept.append(page) or within(page))
        text = figures.separability_report(runs)
    return kept[0], text


@pytest.fixture(scope="module")
def page(made: tuple[Page, str]) -> str:
    return made[1]


def test_the_page_says_the_numbers_of_the_tables(runs: list[Path], page: str) -> None:
    read = checked(page)
    points = analysis.curves(runs)
    lines, accuracy, *_ = read.tables
    last = points[points["depth"] == 2].set_index("mode")
    for mode, row in zip(("greedy", "untrained"), lines[1:], strict=True):
        one = last.loc[mode]
        words = f"{100 * one['accuracy']:.1f}% ({100 * one['ci_low']:.1f} to {100 * one['ci_high']:.1f})"
        assert row[:4] == [f"k = 2, {mode}" if mode == "greedy" else row[0], words, "2", "1"]
        assert re.search(rf"depth 2[^:]*: {re.escape(words)}</title>", page)
    fold = best_depths(analysis.curves(runs, split="validation", refit=False)).set_index("mode")
    assert [row[4] for row in lines[1:]] == [str(fold.loc[mode, "depth"]) for mode in ("greedy", "untrained")]
    assert len(accuracy) == 1 + len(analysis.accuracies(runs, ["linear"]).groupby(["mode", "depth"]))
    for path in runs:
        with RunFile(path) as run:
            assert run.content_digest in page and run.run_id in page
    for title in ("Accuracy against depth", "Training, greedy", "Single images", "What was chosen, and on what"):
        assert f">{title}</h2>" in page
    assert "Each linear fit is within" in page and "validation fold" in page
    assert "What is drawn" in page and "hyper-parameters chosen on the validation fold; protocol version" in page


def test_no_depth_is_the_best_where_the_fold_has_no_rows_of_the_first_probe(run_path: Path, tmp_path: Path) -> None:
    path = probed(Path(shutil.copy(run_path, tmp_path / "run.h5")), [0.5, 0.9, 0.93])
    rows = pd.read_csv(table_path(path))
    other = rows[rows["pooling"] != 0].assign(probe="ncm")  # which alone has rows on the fold
    pd.concat([rows[rows["split"] == "test"], other]).to_csv(table_path(path), index=False)
    page = figures.separability_report([path])
    assert "No depth is called the best, for that would take numbers of this probe" in page


def test_run_files_of_one_name_are_called_by_their_folders(runs: list[Path], tmp_path: Path) -> None:
    paths = [tmp_path / folder / "run.h5" for folder in ("a", "b")]
    for run, path in zip(runs, paths, strict=True):
        path.parent.mkdir()
        shutil.copy(run, path)
        shutil.copy(table_path(run), table_path(path))
    page = figures.separability_report(paths)
    assert all(page.count(f">{name}</th>") >= 2 for name in ("a/run", "b/run"))  # of each network, and of its origin


def test_the_same_runs_make_the_same_bytes(runs: list[Path], page: str, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert figures.separability_report([str(path) for path in runs], out=out) == page
    assert out.with_suffix(".html").read_text() == page


def test_labels_of_others_are_only_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    arrays = {"a<b>&": rng.normal(size=(60, 4)) + labels[:, None], "labels": labels, "classes": [NASTY, "b", "c"]}
    arrays["splits"] = np.array(["train", "validation", "test"])[np.arange(60) // 3 % 3]
    path = tmp_path / "x.h5"
    with layerwise.extract_arrays(
        arrays, out=path, trained_on="other-data", label=NASTY, data_name="<i>data</i>", quiet=True
    ) as run:
        probes.fit(run, "linear", device="cpu", quiet=True)
    page = figures.separability_report(path)
    assert checked(page).seen["script"] == 1
    assert "<script>alert" not in page and "<i>" not in page and "&lt;script&gt;alert(&#39;1&#39;)" in page
    assert "&lt;i&gt;data&lt;/i&gt;" in page and "No training" not in page


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("empty",), 1, "empty holds no study.json, so it is no study. Give the folder of separability-study, or run"),
        (
            ("empty", "run.h5"),
            2,
            "empty is a folder, and a study stands alone in a report. Give it alone, or run files.",
        ),
        (("run.h5",), 1, "run.h5 has no probe results:"),
        (("none.h5",), 1, "none.h5 does not exist"),
        (("run.h5", "-o", "x.pdf"), 2, "-o x.pdf ends in .pdf, but a report is written as .html. Give -o x.html."),
        (("run.h5", "-o", "there.html"), 1, "there.html exists already. Give another name, or --force to replace it."),
        (("broken",), 1, "study.json is damaged: it is no study that separability-study wrote."),
        (
            ("begun",),
            1,
            "begun has no greedy network that is trained and probed, so there is nothing to report. 24 of",
        ),
    ],
)
def test_bad_input_is_a_line(
    own_run: Path, words: tuple[str, ...], code: int, message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(own_run.parent)
    for folder, text in (("empty", None), ("broken", "{}"), ("begun", asked("smoke", {}, []).to_json())):
        Path(folder).mkdir()
        if text is not None:
            (Path(folder) / "study.json").write_text(text)
    Path("there.html").write_text("mine")
    before = sorted(own_run.parent.iterdir())
    given = [*words, *(() if "-o" in words else ("-o", "report.html"))]
    assert call(separability_report, "separability-report", given) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert sorted(own_run.parent.iterdir()) == before and Path("there.html").read_text() == "mine"


def test_runs_on_other_images_are_named(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RunFile, "indices", lambda run, split: np.arange(5) + (run.path.stem == "other"))
    assert call(separability_report, "separability-report", [*map(str, runs), "-o", str(tmp_path / "r")]) == 1
    err = capsys.readouterr().err
    assert (
        f"{runs[1]} cannot stand in one report with {runs[0]}: their test images differ (digits and digits, by" in err
    )


def test_the_fold_chooses_the_shallower_of_equal_depths() -> None:
    rows = [row | {"split": "validation", "refit": 0} for row in run_rows([0.9, 0.6, 0.8, 0.8], k=2)]
    fold = curves(table(rows), ["linear"], "validation", refit=False)
    assert best_depths(fold)["depth"].tolist() == [2]
    points = curves(table(run_rows([0.9, 0.5, 0.7, 0.65], k=2)))
    shown = summary.of_lines(points, fold)
    assert shown.rows == [["k = 2", "65.0% (64.0 to 66.0)", "3", "1", "2", "70.0% (69.0 to 71.0)", "80.0%"]]
    said = " ".join(summary.lead(points, fold))
    assert "At depth 3, the last, a linear probe reads 65.0% (64.0 to 66.0) in k = 2 of the 360 test images" in said
    assert "The validation fold chooses depth 2, where it is right about 70.0% (69.0 to 71.0)" in said
    assert summary.of_lines(points, None).rows == [["k = 2", "65.0% (64.0 to 66.0)", "3", "1"]]
    assert "No depth is called the best" in summary.lead(points, None)[1]


def test_of_a_difference_the_higher_line_comes_first() -> None:
    about = {"probe": "linear", "quantity": "final level", "p": 0.001, "first": "a", "second": "b"}
    found = [about | {"difference": -0.02, "ci_low": -0.03, "ci_high": -0.01, "p_holm": 0.004}]
    found += [about | {"difference": 0.02, "ci_low": -0.01, "ci_high": 0.05, "p_holm": 0.4}]
    assert summary.of_tests(pd.DataFrame(found), "linear") == [
        "Of 2 comparisons of final levels by the linear probe, 1 is shown (p < 0.05 after Holm's adjustment):",
        "a over b: +2.0 points (+1.0 to +3.0), p = 0.004",
    ]
    assert "none is shown" in summary.of_tests(pd.DataFrame(found[1:]), "linear")[0]
    assert summary.of_tests(pd.DataFrame(found), "cnn-1") == []


def test_columns_of_numbers_are_known_by_their_cells() -> None:
    rows = [["12ab", "94.7 [93.7, 95.7]", "-", "< 0.001", "3e-5"], ["2026-11-28", "4 of 5", "-", "[+1, 2]", "94.1%"]]
    assert numeric(Table(head=list("abcde"), rows=rows, caption="")) == [False, True, True, True, True]


ONE_MARK = '<circle cx="1.25" cy="2.5" r="4" data-line="0 block 1"><title>block 1, train: 0.123 nats</title></circle>'


def many(page: Page, marks: int) -> Page:
    """Return a page as of 210 networks of 13 depths: so many marks more in figures of training, a photograph more."""
    seeds = [{"mode": mode, "k": k} for mode in ("greedy", "end-to-end", "untrained") for k in (1, 2, 3)] * 24
    about = [one | {"seed": place // 9} for place, one in enumerate(seeds)][:210]
    rows = table([row for one in about for row in run_rows(list(np.linspace(0.3, 0.9, 14)), **one)])

    photograph = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 120, 3)).astype(np.uint8)).save(photograph, "PNG")
    picture = f'<image href="data:image/png;base64,{base64.b64encode(photograph.getvalue()).decode()}" />'
    added = {"training-greedy": ONE_MARK * marks + "</g></svg>", "atlas": f"</g>{picture}</svg>"}
    found = []
    for one in page.sections:
        end = added.get(one.id, "</g></svg>")
        figures = [
            replace(
                shown,
                wide=shown.wide.removesuffix("</g></svg>") + end,
                narrow=shown.narrow.removesuffix("</g></svg>") + end,
            )
            for shown in one.figures
        ]
        one = replace(one, figures=figures)
        found.append(replace(one, tables=[(networks(rows), True)]) if one.id == "networks" else one)
    return replace(page, sections=found)


def pictures(text: str) -> int:
    return sum(map(len, re.findall(r"base64,([^\"]*)\"", text)))


LEFT_OUT = [
    "pictures of the atlas have half as many dots",
    "figures of training say no numbers where they are pointed at",
    "figures of anything but accuracy say none either",
    "a phone shows figures as a wide screen does",
]


@pytest.mark.parametrize(
    ("marks", "most", "steps"), [(100, MOST, 0), (30_000, MOST, 2), (100, 0, 4), (100, 100_000, 4)]
)
def test_a_page_of_210_networks_stays_below_its_limit_or_says_that_it_does_not(
    made: tuple[Page, str], marks: int, most: int, steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    large = many(made[0], marks)
    if most == 0:  # what is left after all steps, and a little
        most = len(html(within(large, 1)).encode()) + 2_000
        caplog.clear()
    text = html(within(large, most))
    said = [record.getMessage() for record in caplog.records]
    expected = [f"to keep the page below {most / 1e6:.3g} MB, {', '.join(LEFT_OUT[:steps])}"] if steps else []
    assert said[:1] == expected
    if most != 100_000:
        assert len(text.encode()) < most and len(said) == len(expected)
    else:
        assert re.match(r"the page has 0\.\d MB, more than the 0\.1 MB it should: give fewer run files", said[1])
    assert checked(text).seen["tr"] > 210 and (
        pictures(text) < 0.5 * pictures(html(large)) if steps else text == html(large)
    )
    accuracy = text[text.index('<section id="accuracy"') :].partition("</section>")[0]
    assert 'class="marks"' in accuracy and "Point at a mark" in accuracy  # what the page is about says its numbers


@pytest.mark.skipif(browser.found() is None, reason="no Chromium on this machine: apt-get install chromium brings one")
def test_a_browser_finds_nothing_amiss(page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page)
    with browser.tab(tmp_path / "browser") as tab:
        tab.show_as(1366, 768)
        tab.open(path)
        _check_pointing(tab)
        _check_keys(tab)
        _check_sorting(tab)
        for width, height, scheme, mobile in ((1366, 768, "dark", False), (390, 844, "light", True)):
            tab.show_as(width, height, scheme, mobile=mobile)
            assert tab.value("document.documentElement.scrollWidth") <= width
            shown = tab.value("[...document.querySelectorAll('svg.figure')].filter(s => s.clientWidth).map(s => s.id)")
            assert len(shown) == page.count('class="narrow"')
        _check_contrast(tab)
        said = [event for event in tab.events if event["method"] in SAID]
        assert said == []
        asked = [event["params"]["request"]["url"] for event in tab.events if event["method"] == REQUEST]
        assert {url.partition(":")[0] for url in asked} <= {"file", "data"} and len(
            [u for u in asked if u[0] == "f"]
        ) == 1


REQUEST = "Network.requestWillBeSent"
SAID = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
MARK = "document.querySelector('.wide svg.figure .marks circle:nth-of-type(2)')"
TIP = "document.getElementById('tip').hidden ? null : document.getElementById('tip').textContent"


def _check_pointing(tab: browser.Tab) -> None:
    tab.value(f"{MARK}.scrollIntoView({{block: 'center'}})")
    tab.settle()
    box = tab.value(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({MARK}.getBoundingClientRect())")
    tab.point(box[0] + 2, box[1] - 1)
    assert re.fullmatch(r".*depth \d.*: \d+\.\d% \(\d+\.\d to \d+\.\d\)", tab.value(TIP))
    assert tab.value(TIP) == tab.value(f"{MARK}.getAttribute('aria-label')")
    tab.point(2, 2)
    assert tab.value(TIP) is None


def _check_keys(tab: browser.Tab) -> None:
    tab.value("document.querySelector('#accuracy figure').previousElementSibling.setAttribute('tabindex', -1)")
    tab.value("document.querySelector('#accuracy figure').previousElementSibling.focus()")
    said = []
    for key in ("Tab", "ArrowRight", "End", "ArrowDown"):
        tab.press(key)
        said.append(tab.value(TIP))
        assert said[-1] == tab.value("document.activeElement.getAttribute('aria-label')")
    assert len(set(said)) >= 3
    tab.press("Tab")  # one stop for the whole figure
    assert tab.value("document.activeElement.localName") == "summary" and tab.value(TIP) is None


def _check_sorting(tab: browser.Tab) -> None:
    column = "[...document.querySelectorAll('#summary tbody tr')].map(row => parseFloat(row.cells[1].textContent))"
    head = "document.querySelectorAll('#summary thead th')[1]"
    before = tab.value(column)
    tab.value(f"{head}.querySelector('button').focus()")
    for order, expected in (("ascending", sorted(before)), ("descending", sorted(before, reverse=True))):
        tab.press("Enter")
        assert tab.value(column) == expected and tab.value(f"{head}.getAttribute('aria-sort')") == order


def _check_contrast(tab: browser.Tab) -> None:
    """Assert that words stand out from the page by 4.5 to 1 (WCAG 2 AA), in both schemes."""
    colours = (
        "['--ink', '--soft', '--link', '--paper', '--head', '--note'].map(name => "
        "getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    )
    for scheme in ("light", "dark"):
        tab.show_as(1366, 768, scheme)
        ink, soft, link, *grounds = (_luminance(colour) for colour in tab.value(colours))
        for words, ground in [
            *((ink, ground) for ground in grounds),
            (soft, grounds[0]),
            (soft, grounds[1]),
            (link, grounds[0]),
        ]:
            assert (max(words, ground) + 0.05) / (min(words, ground) + 0.05) >= 4.5


def _luminance(colour: str) -> float:
    parts: Any = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
