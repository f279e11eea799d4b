"""The pages of weights, of controls and of what is saved."""

from pathlib import Path
from typing import Any

import pytest
from made_up_site import Parsed, write_tables
from made_up_tables import rank, runs, spread, table
from test_importance import statistic, traced

from iadd.leaderboard import importance
from iadd.leaderboard.importance import Importance, draw, summaries
from iadd.leaderboard.results import table_of, write_table
from iadd.leaderboard.rows import LEADERBOARD
from iadd.leaderboard.savings import Data, with_savings
from iadd.leaderboard.site import build_site
from iadd.leaderboard.training import Training
from iadd.leaderboard.weights import TRACE_FILE, WEIGHTS, weights_of, with_collapses
from iadd.methods._importance import EDGES

CONTROLS = [("iadd", "mtt"), ("ddpp", "mtt"), ("iadd", "ddpp")]


def histogram(**bins: int) -> list[int]:
    """Counts by the lower end of their bin, written like b0_5 for 0.5."""
    found = [0] * len(EDGES)
    for name, count in bins.items():
        found[EDGES.index(float(name[1:].replace("_", ".")))] = count
    return found


def look(iteration: int, seed: int, mean: float, **whole: Any) -> dict[str, Any]:
    """One look at a network of two tensors, whose means are `mean` and 2."""
    low = histogram(b0=1, b0_5=3)
    told = [
        statistic(histogram=low, **({"effective_share": 0.8} | whole)),
        statistic(1, name="conv.weight", mean=mean, histogram=low),
        statistic(2, name="<b>&", mean=2.0, residual_correlation=None, histogram=low),
    ]
    return traced(iteration, *told, seed=seed, method="iadd")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    rows = runs("mtt", spread(0.8), evaluate_seconds=2.0)
    rows += runs("iadd", spread(0.9), evaluate_seconds=3.0) + runs("ddpp", spread(0.8001))
    rows += runs("whole", [[0.99]], ipc=0, evaluate_seconds=60.0)
    tables = write_tables(folder, rows, controls=CONTROLS)
    looks = [look(k, seed, 0.5 + 0.1 * seed) for seed in (0, 1) for k in (0, 30)]
    looks.append(look(60, 0, 0.25, effective_share=0.05))
    weights = weights_of(table_of(looks, TRACE_FILE))
    write_table(weights, folder / "weights.parquet", WEIGHTS, {})
    data, epochs = {"digits": Data(1000, 10, 2_000_000)}, {"mtt-v1": Training(300, 20, 256, 0.01)}
    board = with_savings(with_collapses(rank(table(rows)), weights), data, epochs)
    about = {"about": {"title": "made up", "controls": CONTROLS}}
    write_table(board, tables["leaderboard"], LEADERBOARD, about)
    tables["weights"] = folder / "weights.parquet"
    build_site(tables, {}, {}, folder / "site")
    return folder


def rows_of(page: Parsed, name: str) -> list[list[str]]:
    return [row for row in page.rows if row and row[0] == name]


def test_weights_layer_by_layer_and_over_time(built: Path) -> None:
    page = Parsed(built / "site/weights/digits/ipc1.html")
    layer, last = rows_of(page, "1 conv.weight")
    assert layer == ["1 conv.weight", "0.550", "0.550", "0.250"]
    assert last[:3] == ["1 conv.weight", "4", "0.25"]
    assert rows_of(page, "2 <b>&")[1][-2:] == ["–", "–"]  # a correlation that is not known
    assert rows_of(page, "0.5 to 0.9") == [["0.5 to 0.9", "75.0", "75.0", "75.0"]]
    assert rows_of(page, "0 to 0.1") == [["0 to 0.1", "25.0", "25.0", "25.0"]]
    assert rows_of(page, "10 and more") == [["10 and more", "0", "0", "0"]]


def test_a_collapse_is_named_on_page_and_board(built: Path) -> None:
    page = Parsed(built / "site/weights/digits/ipc1.html")
    words = "Collapse: the weights of 1 of 2 runs had collapsed at the end, of 1 at some time"
    assert page.text.count(words) == 2  # at the head, and at the method
    assert "weights, collapsed in 1 of 2 runs" in page.text
    board = Parsed(built / "site/data/digits/ipc1.html")
    assert board.row("iadd")["Remarks"] == "weights collapsed in 1 of 3 runs"


def test_controls_have_a_forest_plot_and_its_numbers(built: Path) -> None:
    page = Parsed(built / "site/controls.html")
    assert "Better: iadd against mtt, iadd against ddpp; not told apart: ddpp against mtt." in (
        page.text
    )
    pairs = [row for row in page.rows if row[:1] in (["iadd"], ["ddpp"])]
    assert [row[:3] for row in pairs] == [
        ["iadd", "mtt", "3"],
        ["ddpp", "mtt", "3"],
        ["iadd", "ddpp", "3"],
    ]
    assert pairs[0][3] == "+10.00" and pairs[0][-1] == "better"
    assert page.count("svg") == 1 and "ddpp against mtt" in page.text


def test_what_is_saved_stands_below_the_board(built: Path) -> None:
    page = Parsed(built / "site/data/digits/ipc1.html")
    (saved,) = [row for row in page.rows if row and row[0] == "mtt" and "kB" in row[1]]
    assert saved == ["mtt", "2.6 kB", "0.132", "0.21 ms", "2 s", "1 min"]
    assert "Training on all (measured)" in page.text


def test_a_method_s_page_has_the_entry_of_its_paper(built: Path) -> None:
    assert "@inproceedings{dd:mtt, title = {Dataset Distillation by Matching" in (
        Parsed(built / "site/methods/mtt.html").text
    )
    assert "@" not in Parsed(built / "site/methods/whole.html").text


def test_sites_without_weights_and_controls_have_no_such_pages(tmp_path: Path) -> None:
    tables = write_tables(tmp_path, runs("mtt", spread(0.8)))
    build_site(tables, {}, {}, tmp_path / "site")
    assert not (tmp_path / "site/weights").exists()
    assert not (tmp_path / "site/controls.html").exists()
    index = (tmp_path / "site/index.html").read_text()
    assert "Weights" not in index and "Controls" not in index


def test_summaries_and_their_figure(built: Path) -> None:
    (found,) = summaries(built / "weights.parquet")
    assert isinstance(found, Importance) and (found.seeds, found.collapsed, found.ever) == (2, 1, 1)
    means = found.tensors["mean"]
    assert means[1, 0] == pytest.approx(0.55) and means[1, 60] == pytest.approx(0.25)
    layers, sizes, shares, *_ = draw(found).axes
    assert [label.get_text() for label in layers.get_yticklabels()] == [
        "1 conv.weight",
        "2 <b>&",
    ]
    image = layers.images[0].get_array()
    assert image.tolist() == [[pytest.approx(0.55)] * 2 + [0.25], [2.0] * 3]
    assert sizes.images[0].get_array().shape == (len(EDGES), 3)
    assert list(shares.lines[0].get_ydata()) == pytest.approx([0.8, 0.8, 0.05])


def test_settings_are_summarised_one_by_one_however_the_table_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [
        look(k, seed, 0.5) | {"method": method, "ipc": ipc}
        for ipc in (1, 10)
        for method in ("a", "b")
        for seed in (0, 1)
        for k in (0, 5)
    ]
    path = tmp_path / "weights.parquet"
    write_table(weights_of(table_of(looks, TRACE_FILE)), path, WEIGHTS, {})
    for rows in (1, 7, 12, 1000):
        monkeypatch.setattr(importance, "ROWS", rows)
        found = list(summaries(path))
        assert [(one.ipc, one.method, one.seeds) for one in found] == [
            *((1, "a", 2), (1, "b", 2)),
            *((10, "a", 2), (10, "b", 2)),
        ]
        assert all(len(one.tensors) == 6 for one in found)
