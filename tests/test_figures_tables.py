"""Tables of accuracies, ours beside published ones, and their command: numbers, words, files."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from analysis.accuracy import accuracies
from analysis.contrasts import contrasts
from analysis.failures import with_asked
from analysis.published import NUMBERS, greedy
from analysis.trend import trends
from figures import tables
from figures.accuracy_table import accuracy_table
from figures.commands.table import separability_table
from figures.kit.table import Table, latex, markdown
from figures.kit.terminal import on_terminal
from layerwise.commandline import call
from layerwise.errors import UserError
from tests.probe_rows import row, run_rows, table, write_run

Capture = pytest.CaptureFixture[str]


def network(k: int = 3, seed: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """Return the rows of a greedy network of three blocks: a linear probe, its auxiliaries and ensembles."""
    same = {"k": k, "seed": seed, "aux_width": 128, "blocks": 3, "run_id": f"k{k}-s{seed}"} | fields
    trained = [
        row(value + shift, depth=depth, probe=probe, pooling=0, refit=0, **same)
        for probe, shift in (("auxiliary", 0.0), ("ensemble", 0.01))
        for depth, value in enumerate((0.7, 0.8, 0.9 + seed / 100), start=1)
    ]
    return run_rows([0.3, 0.6, 0.7, 0.8], **same) + trained


def test_each_depth_by_each_probe_with_means_over_seeds() -> None:
    found = accuracies(table(network(seed=0) + network(seed=1)))
    own = found.set_index(["probe", "depth"])
    assert own.loc[("auxiliary", 3), "accuracy"] == pytest.approx(0.905)
    assert own.loc[("linear", 0), "accuracy"] == pytest.approx(0.3)
    assert set(found["interval"][found["depth"] > 0]) == {"seeds (t 95%, at least the images' share)"}
    assert set(found["interval"][found["depth"] == 0]) == {"test images (Wilson 95%)"}  # one input, read by all alike
    assert set(found["n_seeds"]) == {2}
    assert set(accuracies(table(network()))["interval"]) == {"test images (Wilson 95%)"}


def test_the_published_number_stands_beside_the_last_auxiliary_and_ensemble_alone() -> None:
    found = accuracies(table(network(dataset="cifar10")))
    beside = found.dropna(subset="published").set_index(["probe", "depth"])["published"]
    assert beside.to_dict() == pytest.approx({("auxiliary", 3): 0.917, ("ensemble", 3): 0.928})


def test_top5_stands_beside_published_top5_and_is_asked_for() -> None:
    rows = network(dataset="imagenet") + [
        one | {"metric": "accuracy_top5", "value": min(0.99, one["value"] + 0.05)}
        for one in network(dataset="imagenet")
    ]
    found = accuracies(table(rows), top5=True)
    own = found.set_index(["probe", "depth"])
    assert own.loc[("auxiliary", 3), "accuracy"] == pytest.approx(0.95)
    assert own.loc[("linear", 0), "accuracy"] == pytest.approx(0.35)
    assert own["published"].dropna().to_dict() == pytest.approx({("auxiliary", 3): 0.887, ("ensemble", 3): 0.898})
    assert accuracy_table(found).caption.startswith("Top-5 accuracy (%) on imagenet")
    assert accuracies(table(rows)).set_index(["probe", "depth"]).loc[("auxiliary", 3), "accuracy"] == pytest.approx(0.9)
    _, made = tables.of_rows(table(rows), "top5")
    assert made.label == "top5" and "95.0" in str(made.rows)
    with pytest.raises(UserError, match="no top-5 accuracy"):
        accuracies(table(network()), top5=True)


def test_it_says_where_the_data_and_the_network_differ() -> None:
    found = accuracies(table(network(dataset="cifar10-half")))
    (words,) = set(found["differs"]) - {""}
    assert words == "data cifar10-half; trained on 1,000 of 50,000 images; J = 3, not 4; M = 64, not 128"
    same = {"dataset": "cifar10", "blocks": 4, "width": 128, "n_train": 50_000}
    assert set(accuracies(table(network(**same)))["differs"]) == {""}


def test_a_smaller_last_auxiliary_and_pruning_are_named_and_never_averaged() -> None:
    found = accuracies(table(network(dataset="cifar10") + network(dataset="cifar10", variant="M_f = 64", run_id="f")))
    assert found.groupby("variant")["n_runs"].unique().map(list).to_dict() == {"": [1], "M_f = 64": [1]}
    words = found[found["differs"] != ""].groupby("variant")["differs"].first()
    assert words["M_f = 64"] == f"{words['']}; M_f = 64"
    shown = markdown(accuracy_table(found))
    assert "| greedy, M_f = 64 |" in shown and "Published beside greedy, M_f = 64, k = 3, M = 64:" in shown


@pytest.mark.parametrize("fields", [{"dataset": "digits"}, {"dataset": "cifar10", "mode": "end-to-end"}, {"k": 7}])
def test_nothing_is_published_of_other_data_modes_or_k(fields: dict[str, Any]) -> None:
    found = accuracies(table(network(**{"dataset": "cifar10", **fields})))
    assert found["published"].isna().all()


def test_runs_without_a_common_probe() -> None:
    rows = table(run_rows([0.3, 0.5], seed=0) + run_rows([0.3, 0.5], (("cnn-1", 64),), seed=1))
    with pytest.raises(UserError, match=r"greedy---64-0.h5|have no probe in common. Probe them alike"):
        accuracies(rows)


def test_published_numbers_have_a_source_and_a_copy_of_the_data_finds_them() -> None:
    assert all(number.source and 0 < number.top1 < 100 for number in NUMBERS)
    assert all(("second hand" in number.source) != number.sure for number in NUMBERS)
    found = greedy("cifar10-half", 1)
    assert found is not None and (found.top1, found.ensemble, found.blocks) == (88.3, 88.4, 5)
    assert greedy("cifar100", 1) is None


SMALL = Table(head=["net_work", "a|b"], rows=[["x & y", "50%"], ["z", "1"]], caption="All $ of it.", notes=["A note."])


def test_markdown_is_aligned_and_keeps_its_bars() -> None:
    assert markdown(SMALL).splitlines() == [
        "All $ of it.",
        "",
        r"| net_work | a\|b |",
        "| -------- | ---: |",
        "| x & y    |  50% |",
        "| z        |    1 |",
        "",
        "A note.",
    ]


def test_latex_is_a_booktabs_table_with_nothing_special_left() -> None:
    text = latex(SMALL)
    rules = re.findall(r"\\(toprule|midrule|bottomrule)", text)
    assert rules == ["toprule", "midrule", "bottomrule"]
    assert r"net\_work & a\textbar{}b \\" in text and r"x \& y & 50\% \\" in text and r"\caption{All \$ of it.}" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {1}


def test_latex_takes_no_label_for_a_command_or_another_sign() -> None:
    rows = [["[b]x", "*"], ["a--b---c", "<1>"], ["{a} ~^\\", "#1"]]
    shown = latex(Table(head=["a", "b"], rows=rows, caption="", notes=[]))
    # After \\\\ a bracket or a star would be its option; in OT1 fonts < > | are other signs; hyphens join to a dash.
    assert r"{}[b]x & {}* \\" in shown
    assert r"a-{}-b-{}-{}-c & \textless{}1\textgreater{} \\" in shown
    assert r"\{a\} \textasciitilde{}\^{}\textbackslash{} & \#1 \\" in shown


def siunitx_columns(text: str) -> list[tuple[str, list[str]]]:
    """Return the form and the cells of each column of a LaTeX table, the head's first; a cell over two stands twice."""
    (forms,) = re.findall(r"\\begin\{tabular\}\{(.*)\}", text)
    columns = re.findall(r"S\[[^]]*\]|[lr]", forms)
    assert "".join(columns) == forms
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r"\\")]
    rows = []
    for line in lines:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)&", line)]
        rows.append([one for cell in cells for one in [cell] * (1 + cell.startswith(r"\multicolumn{2}"))])
    assert {len(row) for row in rows} == {len(columns)}
    return [(form, list(cells)) for form, cells in zip(columns, zip(*rows, strict=True), strict=True)]


def check_siunitx(text: str) -> None:
    """Assert that a cell of a column of numbers is a number of its format, or in braces."""
    assert text.startswith(r"% needs \usepackage{booktabs,siunitx}")
    for form, (head, *cells) in siunitx_columns(text):
        if not form.startswith("S"):
            continue
        assert head.startswith(("{", r"\multicolumn{2}{c}{"))
        found = re.fullmatch(r"S\[table-format=([+-]?)(\d)(?:\.(\d))?(, retain-explicit-plus)?\]", form)
        assert found is not None
        sign, whole, decimals, plus = found.groups()
        for cell in cells:
            number = re.fullmatch(r"([+-]?)(\d+)(?:\.(\d+))?", cell)
            if number is None:
                assert re.fullmatch(r"\{[^{}]*(\{\}[^{}]*)?\}", cell)
                continue
            assert len(number[2]) <= int(whole) and len(number[3] or "") <= int(decimals or 0)
            assert not number[1] or sign
            assert number[1] != "+" or plus


def test_latex_has_columns_of_numbers_that_siunitx_reads() -> None:
    rows = [["x", "+1.20", "98.1 [97.0, 99.0]", "< 0.001", "12"], ["y", "-10.5", "-", "0.040", "-"]]
    rows += [["z", "-", "7.25", "-", "4 of 5"]]
    text = latex(Table(head=["a", "b", "c", "p", "n"], rows=rows, caption="", label="x"))
    check_siunitx(text)
    assert [form for form, _ in siunitx_columns(text)] == [
        *("l", "S[table-format=+2.2, retain-explicit-plus]", "S[table-format=2.2]", "r"),
        *("S[table-format=1.3]", "S[table-format=2]"),
    ]
    assert r"x & +1.20 & 98.1 & {}[97.0, 99.0] & {\textless{} 0.001} & 12 \\" in text
    assert r"z & {-} & 7.25 &  & {-} & {4 of 5} \\" in text
    assert r"a & {b} & \multicolumn{2}{c}{c} & {p} & {n} \\" in text
    assert r"\label{tab:x}" in text and r"\label" not in latex(SMALL)


def test_all_tables_are_read_by_siunitx_and_have_a_label() -> None:
    rows = table([r for k in (1, 2) for seed in (0, 1) for r in network(k=k, seed=seed, dataset="cifar10")])
    every = {
        "accuracy": accuracy_table(accuracies(rows)),
        "trends": tables.trends_table(trends(rows)),
        "contrasts": tables.contrasts_table(contrasts(rows)),
        "published": tables.published_table(),
    }
    for label, made in every.items():
        check_siunitx(latex(made))
        assert rf"\label{{tab:{label}}}" in latex(made)
    check_siunitx(latex(accuracy_table(accuracies(rows), "depth")))
    for name in ("accuracy", "trends", "contrasts"):
        assert "Each linear fit is within 1e-6 nats of its optimum, proved." in every[name].notes


def test_depths_as_columns() -> None:
    made = accuracy_table(accuracies(table(network(k=2) + network())), "depth")
    assert made.head == ["network", "probe", "k", "M", "j = 0", "j = 1", "j = 2", "j = 3"]
    assert [line[:4] for line in made.rows] == [
        ["greedy", probe, k, "64"] for k in ("2", "3") for probe in ("linear", "auxiliary", "ensemble")
    ]
    assert made.rows[1][4:] == ["-", "70.0 [69.0, 71.0]", "80.0 [79.0, 81.0]", "90.0 [89.0, 91.0]"]
    with pytest.raises(UserError, match="unknown columns 'k'. Choices: probe, depth."):
        accuracy_table(accuracies(table(network())), "k")


def test_a_table_without_an_input_does_not_speak_of_it() -> None:
    rows = table(network())
    assert "(0 = input)" in accuracy_table(accuracies(rows)).caption
    assert "input" not in accuracy_table(accuracies(rows[rows["depth"] > 0])).caption


def test_networks_that_did_not_train_are_counted() -> None:
    rows = with_asked(table(network(seed=0) + network(seed=1)), [("greedy", 3, 64)] * 3)
    assert "Networks that trained: greedy, k = 3, M = 64: 2 of 3." in accuracy_table(accuracies(rows)).notes
    assert [line[4] for line in tables.trends_table(trends(rows, ["linear"])).rows] == ["2 of 3"]


@pytest.mark.parametrize(
    ("epochs", "note"),
    [
        (12, "CNN probes were trained for 12 epochs."),
        (2, "CNN probes were trained for 2 epochs only (quick), far from convergence."),
    ],
)
def test_it_says_for_how_long_cnn_probes_were_trained(epochs: int, note: str) -> None:
    rows = table(run_rows([0.5, 0.6], (("cnn-1", 64),), iterations=epochs))
    assert note in accuracy_table(accuracies(rows)).notes
    assert not any("CNN" in one for one in accuracy_table(accuracies(table(network()))).notes)


def test_nothing_is_minus_zero() -> None:
    rows = [network(k=k, seed=seed) for k in (1, 2) for seed in (0, 1)]
    found = contrasts(table([one for many in rows for one in many]), ["linear"])
    made = tables.contrasts_table(found.assign(difference=-1e-17, ci_low=-1e-17, ci_high=-0.00004))
    shown = [cell for line in made.rows for cell in line]
    assert "+0.00" in shown and "[+0.00, +0.00]" in shown and not any("-0.00" in cell for cell in shown)


def test_a_row_for_each_network_and_depth() -> None:
    made = accuracy_table(accuracies(table(network(dataset="cifar10") + network(k=2, dataset="cifar10"))))
    assert made.head == ["network", "k", "M", "depth", "linear", "auxiliary", "ensemble", "published (ensemble)"]
    assert [line[1] + line[3] for line in made.rows] == ["20", "21", "22", "23", "30", "31", "32", "33"]
    assert made.rows[-1][4:] == ["80.0 [79.0, 81.0]", "90.0 [89.0, 91.0]", "91.0 [90.0, 92.0]", "91.7 (92.8)"]
    assert made.rows[4][5:] == ["-", "-", "-"]
    assert any("Published beside greedy, k = 3, M = 64" in note and "M = 64, not 128" in note for note in made.notes)


def test_trends_and_contrasts_as_tables() -> None:
    rows = table([r for k in (1, 2) for seed in (0, 1) for r in network(k=k, seed=seed)])
    made = tables.trends_table(trends(rows, ["linear"]))
    assert made.head == ["probe", "network", "k", "M", "seeds", "depths", "L", "p", "p (Holm)", "of a fall (Holm)"]
    assert [line[:6] for line in made.rows] == [["linear", "greedy", str(k), "64", "2", "3"] for k in (1, 2)]
    made = tables.contrasts_table(contrasts(rows, ["linear"]))
    assert [line[:4] for line in made.rows] == [
        ["linear", quantity, "greedy, k = 1", "greedy, k = 2"] for quantity in ("early gain", "slope", "final level")
    ]
    assert made.head[-3:] == ["p", "p (Holm)", "p, 1 point or more (Holm)"]
    assert "differ by less than 1 point." in made.notes[0]
    assert made.head[2:4] == ["first line", "second line"]
    assert not any("not tested" in note for note in made.notes)


def test_contrasts_of_one_seed_say_why_there_are_no_tests() -> None:
    made = tables.contrasts_table(contrasts(table([r for k in (1, 2) for r in network(k=k)]), ["linear"]))
    assert {line[-1] for line in made.rows} == {"-"}
    assert "-: not tested, for that takes two seeds or more of both lines." in made.notes


def command(*words: Any) -> int:
    return call(separability_table, "separability-table", [str(word) for word in words])


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr("analysis.tables.identified", lambda path: (Path(path).stem, ""))
    return [write_run(tmp_path, f"k{k}-s{seed}", network(k=k, seed=seed)) for k in (1, 2) for seed in (0, 1)]


@pytest.mark.parametrize("what", ["accuracy", "trends", "contrasts"])
def test_three_files_the_same_each_time(
    what: str, runs: list[Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "table.md"
    assert command(*runs, "--what", what, "-o", out) == 0
    shown = capsys.readouterr().out
    files = [out.with_suffix(suffix) for suffix in (".md", ".tex", ".csv")]
    assert shown.startswith("".join(f"{path}\n" for path in files) + out.read_text()[:60])
    for line in out.read_text().splitlines()[4:6]:  # of a row on one line, the cells of the file
        assert re.sub(r"[ |]+", " ", line).strip() in re.sub(r" +", " ", shown)
    before = [path.read_bytes() for path in files]
    assert command(*runs, "--what", what, "-o", out) == 1
    assert command(*runs, "--what", what, "-o", out, "--force") == 0
    assert [path.read_bytes() for path in files] == before
    with (tmp_path / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) > 0


@pytest.mark.parametrize("words", [[], ["--keep-failed"]])
def test_the_command_leaves_out_what_did_not_train(
    words: list[str], runs: list[Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {"k1-s1": "9.0% on its train fold, chance 10.0%"}
    monkeypatch.setattr("analysis.tables.identified", lambda path: (path.stem, failed.get(path.stem, "")))
    out = tmp_path / "table.md"
    assert command(*runs, "--probe", "linear", *words, "-o", out) == 0
    said = f"{runs[1]} did not train ({failed['k1-s1']}): it is left out; --keep-failed averages it with others.\n"
    assert capsys.readouterr().err == ("" if words else said)
    assert ("k = 1, M = 64: 1 of 2" in out.read_text()) is not bool(words)
    assert "CNN" not in out.read_text()
    assert command("--what", "published", "--probe", "linear", "-o", tmp_path / "p.md") == 2
    assert "published numbers are of no probe. Leave out --probe." in capsys.readouterr().err


def test_the_command_takes_depths_as_columns(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "wide.md"
    assert command(*runs, "--columns", "depth", "-o", out) == 0
    assert "| network | probe" in out.read_text() and "j = 3" in out.read_text()
    assert command(*runs, "--columns", "k", "-o", tmp_path / "other.md") == 2
    assert "unknown columns 'k'. Choices: probe, depth." in capsys.readouterr().err


def test_the_bound_of_contrasts_is_in_points(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "contrasts.md"
    assert command(*runs, "--what", "contrasts", "--bound", "2.5", "-o", out, "--quiet") == 0
    assert "p, 2.5 points or more (Holm)" in out.read_text()
    with out.with_suffix(".csv").open() as file:
        bounds = {row["quantity"]: float(row["bound"]) for row in csv.DictReader(file)}
    assert bounds == pytest.approx({"early gain": 0.025, "slope": 0.0125, "final level": 0.025})


@pytest.mark.parametrize("what", ["accuracy", "trends", "contrasts"])
@pytest.mark.parametrize("width", [60, 80])
def test_a_table_is_no_wider_than_the_terminal_and_its_file_has_all_columns(
    what: str, width: int, runs: list[Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert command(*runs, "--what", what, "-o", tmp_path / "table.md") == 0
    shown = capsys.readouterr().out.splitlines()[3:]
    assert max(map(len, shown)) <= width
    head = (tmp_path / "table.md").read_text().splitlines()[2].strip("| ").split("|")
    assert not [word for title in head for word in title.split() if word not in " ".join(shown).split()]


def test_cells_are_broken_between_words_and_what_does_not_fit_stands_below() -> None:
    made = Table(
        head=["first line", "points", "p"],
        rows=[["end-to-end, k = 1", "1.0 [0.5, 1.5]", "< 0.001"]],
        caption="c",
        text=1,
    )
    assert on_terminal(made, 80).splitlines()[2:] == [
        *("first line                 points        p", "-----------------  --------------  -------"),
        "end-to-end, k = 1  1.0 [0.5, 1.5]  < 0.001",
    ]
    assert on_terminal(made, 23).splitlines()[2:] == [
        *("first line       points", "-----------  ----------", "end-to-end,         1.0", "k = 1        [0.5, 1.5]"),
        *("", "first line         p", "-----------  -------", "end-to-end,  < 0.001", "k = 1"),
    ]


def test_all_published_numbers(tmp_path: Path, capsys: Capture) -> None:
    assert command("--what", "published", "-o", tmp_path / "published") == 0
    text = (tmp_path / "published.md").read_text()
    assert len(re.findall(r"^\| (?:cifar10|imagenet)", text, re.MULTILINE)) == len(NUMBERS)
    assert "89.86" in text and "check before quoting" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--what", "all"],
            "unknown table 'all'. Choices: accuracy, top5, trends, contrasts, differences, shifts, codelength, "
            "published.",
        ),
        (["--what", "accuracy"], "no run file was given. `separability-table RUN.H5... --what accuracy -o table.md`"),
        (["a.h5", "--epsilon", "1"], "--epsilon is of codelength, but --what is accuracy. Leave one of them out."),
        (
            ["a.h5", "--what", "codelength", "--epsilon", "0"],
            "--epsilon is 0, but takes a loss above 0, in bits a label.",
        ),
        (["a.h5", "--what", "differences"], "differences are between two runs, but 1 were given. Give two run files."),
        (
            ["a.h5", "--what", "contrasts", "--bound", "0"],
            "--bound is 0, but takes percentage points above 0, up to 100.",
        ),
        (
            ["a.h5", "--what", "trends", "--bound", "2"],
            "--bound is of contrasts, but --what is trends. Leave one of them out.",
        ),
        (["a.h5", "--what", "published"], "published numbers are of no run. Leave the run files out."),
    ],
)
def test_wrong_words(words: list[str], message: str, tmp_path: Path, capsys: Capture) -> None:
    assert command(*words, "-o", tmp_path / "t.md") == 2
    assert capsys.readouterr().err == f"separability-table: {message}\n"
