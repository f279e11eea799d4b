"""A paper's tables, references and figures: what is bold, what is apart, that LaTeX can read it."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up_tables import Row, by_class, compared, confusion, rank, runs, spread, table
from test_importance import statistic, traced

from iadd import methods
from iadd.leaderboard.beside import beside
from iadd.leaderboard.grids import Grid, grids
from iadd.leaderboard.paper import latex, markdown, papers, references
from iadd.leaderboard.results import table_of, write_table
from iadd.leaderboard.rows import COMPARISONS, LEADERBOARD, LeaderboardRow
from iadd.leaderboard.training import Training, training_lines, with_training
from iadd.leaderboard.weights import TRACE_FILE, WEIGHTS, weights_of
from iadd.pipeline import stages
from iadd.pipeline.tables import configuration

Iadd = Callable[..., tuple[int, str, str]]
PDFLATEX, BIBTEX = shutil.which("pdflatex"), shutil.which("bibtex")


def evaluations() -> list[Row]:
    """At ipc 1 mtt and iadd cannot be told apart and dc is worse; at ipc 10 iadd is alone."""
    return [
        *runs("mtt", spread(0.9)),
        *runs("iadd", [[0.91, 0.905], [0.9, 0.9], [0.9, 0.9]]),
        *runs("dc", spread(0.5)),
        *runs("iadd", spread(0.95), ipc=10),
        *runs("whole", [[0.99, 0.98]], ipc=0),
    ]


def board(rows: list[Row] | None = None) -> list[LeaderboardRow]:
    return rank(table(evaluations() if rows is None else rows))


def bold(grid: Grid) -> dict[tuple[str, int], bool]:
    return {
        (line.first.method, ipc): number.bold
        for line in grid.lines
        for (_, ipc, _), number in zip(grid.columns, line.numbers, strict=True)
        if number
    }


# What is bold.


def test_bold_is_what_ranking_cannot_tell_from_the_best() -> None:
    rows = board()
    (grid,) = grids(rows)
    assert grid.columns == (("digits", 1, "accuracy"), ("digits", 10, "accuracy"))
    assert bold(grid) == {(r.method, r.ipc): r.rank_low == 1 for r in rows}
    assert {key for key, is_bold in bold(grid).items() if is_bold} == {
        ("mtt", 1),
        ("iadd", 1),
        ("iadd", 10),
    }


def test_neither_published_nor_few_seeds_nor_the_ceiling_are_bold() -> None:
    cell = {"dataset": "cifar10", "network_eval": "convnet-d3-w128"}
    cell |= {"network_distill": "convnet-d3-w128"}
    few = [row | cell for row in runs("mtt", [[0.5]]) + runs("whole", [[0.9]], ipc=0)]
    rows = beside(rank(table(few)), {"cifar10": "cifar10"})
    (grid,) = grids(rows)
    assert not any(bold(grid).values())
    blocks = [{line.first.source for line in block} for block in grid.blocks]
    assert blocks[:2] == [{"measured"}, {"published"}]
    (mtt,) = (row for row in rows if row.source == "published" and row.method == "mtt")
    text = latex([grid])
    assert f"mtt (published)~\\cite{{dd:mtt}} & {100 * mtt.accuracy_mean:.1f}" in text
    assert "Published values are not ranked" in text and str(mtt.citation) in text


def unequal(**values: float) -> list[Row]:
    """Method -> accuracy 0.9 and this balanced accuracy, on 900 and 100 test images."""
    found: list[Row] = []
    for (method, balanced), accuracy in zip(values.items(), (0.9, 0.7), strict=False):
        matrix = confusion(accuracy, (900, 100))
        score = {"confusion": matrix, **by_class(matrix)}
        rows = runs(method, spread(accuracy))
        found += [
            row | score | {"balanced_accuracy": balanced + row["accuracy"] % 0.01} for row in rows
        ]
    return found


def test_where_classes_are_unequal_balanced_accuracy_ranks_and_accuracy_stands_beside_it() -> None:
    rows = table(unequal(dc=0.5, dm=0.8))
    board = rank(rows)
    (grid,) = grids(board)
    assert grid.columns == (("digits", 1, "balanced_accuracy"), ("digits", 1, "accuracy"))
    assert [line.first.method for line in grid.lines] == ["dm", "dc"]
    marked = [[n.bold for n in line.numbers if n] for line in grid.lines]
    assert marked == [[True, False], [False, False]]
    assert "Test balanced accuracy (%)" in grid.caption and "It ranks the methods" in grid.caption
    assert "digits, 1, balanced accuracy | digits, 1, accuracy" in markdown([grid])
    assert r"Measure & balanced & accuracy \\" in latex([grid])
    (plain,) = grids(board, compared(rows), "accuracy")
    assert [line.first.method for line in plain.lines] == ["dc", "dm"]
    marked = [[n.bold for n in line.numbers if n] for line in plain.lines]
    assert marked == [[True, False], [False, False]]
    assert "itself ranks these methods by balanced accuracy" in plain.caption


def test_an_interval_that_is_cut_is_named() -> None:
    (grid,) = grids(board(runs("dm", [[0.1], [0.5], [0.4]])))
    (number,) = grid.lines[0].numbers
    assert number and number.spread and number.mean < number.spread
    assert "or the longer side of one that ends at 0 or 100." in grid.caption
    assert "longer side" not in grids(board(runs("dm", spread(0.5))))[0].caption


def test_a_measure_without_paired_tests_has_nothing_bold() -> None:
    rows = table(unequal(dc=0.5, dm=0.8))
    (grid,) = grids(rank(rows), compared(rows), "auroc")
    assert not any(bold(grid).values()) and "nothing is bold" in grid.caption
    with pytest.raises(ValueError, match=r"--metric sensitivity: no row .* `positive`"):
        grids(rank(rows), compared(rows), "sensitivity")


def test_data_sets_ranked_by_different_measures_are_in_tables_of_their_own() -> None:
    rows = unequal(dc=0.5, dm=0.8) + [r | {"dataset": "blobs"} for r in runs("dm", spread(0.8))]
    found = grids(board(rows))
    assert {g.measure: {c.dataset for c in g.columns} for g in found} == {
        "accuracy": {"blobs"},
        "balanced_accuracy": {"digits"},
    }
    labels = re.findall(r"\\label\{(.*)\}", latex(found))
    assert len(set(labels)) == 2


def test_the_caption_says_how_networks_were_trained() -> None:
    (grid,) = grids(with_training(board(), {"mtt-v1": Training(1000, 20, 64, 0.02)}))
    assert (
        "Protocol mtt-v1: networks are trained for 1,000 epochs on a distilled set and 20 epochs "
        "on the whole data, in batches of at most 64, by SGD with momentum 0.9 and weight decay "
        "5e-4; step size: the set's own where it learned one, else 0.02, a tenth of it"
    ) in grid.caption


def test_protocols_that_train_alike_share_a_sentence() -> None:
    names = "mtt-v1", "mtt-v1-noaug", "dc-v1"
    rows = board([row for name in names for row in runs("mtt", spread(0.8), protocol=name)])
    other, alike = training_lines(
        with_training(rows, dict.fromkeys(names, Training(300, 20, 256, 0.01)))
    )
    assert other.startswith(
        "Protocol dc-v1: networks are trained for 300 epochs on a distilled set,"
    )
    assert "step size: 0.01 for every set" in other
    assert alike.startswith(
        "Protocols mtt-v1 and mtt-v1-noaug: networks are trained for 300 epochs"
    )
    assert "(the protocol's own: 1,000)" in alike


# The text.


def test_markdown_by_hand() -> None:
    lines = [
        replace(row, rank_low=None) if row.method == "dc" else row
        for row in board()
        if row.method != "mtt"
    ]
    text = markdown(grids(lines))
    head, *body = text.strip().splitlines()
    assert "Test accuracy (%) of convnet under protocol mtt-v1, hard labels" in head
    assert "± is half a 95 % interval over 3 distillation seeds" in head
    assert body[1:3] == ["| method | digits, 1 | digits, 10 |", "| --- | ---: | ---: |"]
    iadd = next(row for row in lines if row.method == "iadd" and row.ipc == 1)
    half = 100 * (iadd.accuracy_high - iadd.accuracy_mean)
    assert body[3].startswith(rf"| iadd\* | **90.2** ± {half:.1f} | **95.0** ± ")
    assert body[4].startswith("| dc | 50.0 ± ") and body[4].endswith(" | – |")
    assert body[5].startswith("| whole | 98.5 ± ") and len(body) == 6


def test_what_may_not_be_compared_is_in_tables_of_its_own() -> None:
    rows = evaluations()
    rows += runs("datm", spread(0.92), label_regime="soft")
    rows += runs("mtt", spread(0.93), tuned=True)
    rows += runs("mtt", spread(0.8), protocol="dc-v1")
    rows += runs("mtt", spread(0.7), network_eval="mlp")
    found = grids(board(rows))
    places = [(g.first.protocol, g.first.network_eval, g.first.label_regime) for g in found]
    assert len(found) == 5 and len(set(places)) == 4
    for grid in found:
        for line in grid.lines:
            same = ("protocol", "network_eval", "label_regime", "tuned")
            assert all(getattr(line.first, k) == getattr(grid.first, k) for k in same)
    soft = next(grid for grid in found if grid.first.label_regime == "soft")
    assert [line.first.method for line in soft.lines] == ["datm", "whole"]


HOSTILE = "a_b&c%d#e$f{g}h~i^j\\k<l>"


def without_escapes(text: str) -> str:
    return re.sub(r"\\[\\&%$#_{}]", "", text)


def test_latex_is_balanced_and_escaped() -> None:
    rows = [
        row | {"dataset": HOSTILE, "method": HOSTILE if row["method"] == "dc" else row["method"]}
        for row in evaluations()
    ]
    text = latex(grids(board(rows)))
    plain = without_escapes(re.sub(r"^%.*\n", "", text))
    assert plain.count("{") == plain.count("}") and plain.isascii()
    depth = 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert not set(plain.replace("$\\pm$", "").replace("$^{*}$", "")) & set("#$%^")
    assert re.findall(r"\\begin{(\w+)}", text) == re.findall(r"\\end{(\w+)}", text)[::-1]
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4 and all(without_escapes(line).count("&") == 2 for line in lines)
    escaped = r"a\_b\&c\%d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
    assert rf"    {escaped}\textless{{}}l\textgreater{{}} & " in text
    assert r"iadd$^{*}$~\cite{dd:iadd} & \textbf{90.2}" in text


def test_variants_cite_their_method_and_submissions_nobody() -> None:
    rows = runs("ours", spread(0.9)) + runs("mtt", spread(0.8), source="submitted")
    text = latex(grids(board(rows)), {"ours": "iadd"})
    assert r"ours~\cite{dd:iadd} &" in text and "mtt (submitted) &" in text


@pytest.mark.skipif(not (PDFLATEX and BIBTEX), reason="pdflatex and bibtex are not installed")
def test_a_real_tex_sets_it_with_booktabs_alone(tmp_path: Path) -> None:
    hostile = [row | {"method": HOSTILE} if row["method"] == "dc" else row for row in evaluations()]
    cited = [*methods.names(), "random"]  # every entry of the bibliography is read
    (tmp_path / "tables.tex").write_text(latex(grids(board(hostile))))
    (tmp_path / "references.bib").write_text(references(cited))
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        "\\input{tables}\\nocite{*}\\bibliographystyle{plain}\\bibliography{references}\n"
        "\\end{document}\n"
    )

    fonts = os.environ | {"TEXMFVAR": str(tmp_path / "var")}  # what TeX makes stays here

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, env=fonts)
        said = done.stdout.decode("latin-1")
        assert not done.returncode, said
        return said

    tex = str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "paper"
    run(*tex)
    assert "Warning" not in run(str(BIBTEX), "paper")
    run(*tex)
    said = run(*tex)
    assert not re.search("Overfull|undefined|Warning", said), said
    bibliography = (tmp_path / "paper.bbl").read_text()
    assert bibliography.count("\\bibitem") == len(papers())


# The papers.


def test_every_method_has_its_paper() -> None:
    known = papers()
    assert set(known) == set(methods.names()) - {"random", "whole"}
    for name, entry in known.items():
        assert entry.count("{") == entry.count("}") and entry.startswith(
            ("@inpro", "@art", "@misc")
        )
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry, flags=re.MULTILINE))
        assert {"title", "author", "year"} <= set(fields)
        said = " ".join((methods.find(name).__doc__ or "").split())
        assert fields.get("eprint", "2009") in said, name
        assert fields["author"].split(",")[0].split()[-1] in said, name


def test_references_are_those_of_the_methods_used() -> None:
    text = references(["iadd", "random", "mtt", "iadd"])
    assert re.findall(r"^@\w+{(.*),$", text, flags=re.MULTILINE) == ["dd:iadd", "dd:mtt"]
    assert text.endswith("}\n")


# The commands.


@pytest.fixture
def made(iadd: Iadd, tmp_path: Path) -> tuple[Iadd, Path]:
    """A benchmark whose tables are there, of made-up numbers."""
    config: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parent.parent / "config" / "smoke.yaml").read_text()
    )
    params = config["methods"]["mtt"]["params"]
    config["methods"] = {"mtt": {"params": params}, "ours": {"method": "iadd", "params": params}}
    config |= {"controls": {"mtt": ["ours"]}, "ipc": [1]}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    plan, key = stages.open_plan(path)
    stages.prepare(plan, key)
    rows = [
        row | {"dataset": key}
        for row in runs("mtt", spread(0.8)) + runs("ours", spread(0.9), reconstruction=True)
    ]
    leaderboard, comparisons = rank(table(rows)), compared(table(rows))
    identity = {"configuration": configuration(plan)}
    write_table(leaderboard, plan.table("leaderboard"), LEADERBOARD, identity)
    write_table(comparisons, plan.table("comparisons"), COMPARISONS, identity)
    told = [statistic(), statistic(1, name="conv.weight"), statistic(2, name="conv.bias")]
    for row in told:
        row["histogram"] = [1] * 24
    history = [traced(k, *told, dataset=key, method="ours", seed=s) for s in (0, 1) for k in (0, 5)]
    write_table(weights_of(table_of(history, TRACE_FILE)), plan.table("weights"), WEIGHTS, {})
    return iadd, path


def test_the_command_prints_tables(made: tuple[Iadd, Path]) -> None:
    iadd, path = made
    status, out, _ = iadd("table", str(path), "--latex")
    assert status == 0 and r"ours$^{*}$~\cite{dd:iadd} & \textbf{90.0}" in out
    status, out, _ = iadd("table", str(path))
    assert status == 0 and r"| ours\* | **90.0** ±" in out
    status, out, _ = iadd("show", str(path))
    assert status == 0 and re.search(r"ours against mtt +\+10\.00 \(.*\), better", out)
    status, out, _ = iadd("table", str(path), "--metric", "auroc")
    assert status == 0 and "Test area under the ROC curve (%)" in out
    status, _, err = iadd("table", str(path), "--metric", "f1")
    assert status == 2 and err == (
        "iadd: table: --metric 'f1': allowed are accuracy, balanced_accuracy, sensitivity, auroc\n"
    )
    status, _, err = iadd("table", str(path), "--latex", "--markdown")
    assert status == 2 and err == "iadd: table: --latex and --markdown: allowed is one of them\n"


def test_a_paper_s_files_have_fonts_inside_and_the_same_bytes(made: tuple[Iadd, Path]) -> None:
    iadd, path = made
    found = []
    for folder in ("a", "b"):
        status, out, err = iadd("paper", str(path), "--out", folder)
        assert status == 0, err
        files = [
            Path(line.removesuffix(": written")) for line in out.split("\n") if "written" in line
        ]
        found.append({file.name: file.read_bytes() for file in files})
    assert found[0] == found[1]
    figures = {name: content for name, content in found[0].items() if name.endswith(".pdf")}
    assert set(found[0]) - set(figures) == {"tables.tex", "tables.md", "references.bib"}
    assert sorted(figures) == [
        "accuracy-convnet-mtt-v1-hard.pdf",
        "controls-blobs-1-convnet-mtt-v1-hard.pdf",
        "weights-blobs-1-ours.pdf",
    ]
    for content in figures.values():
        assert content.startswith(b"%PDF") and b"/FontFile2" in content and b"/Type3" not in content
    assert found[0]["references.bib"].count(b"@") == 2
