"""Published values: data with sources, shown beside measured ones and never ranked with them."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_up_tables import rank, runs, spread, table
from test_plan import plan

from iadd.evaluation import PROTOCOLS
from iadd.leaderboard import published
from iadd.leaderboard.beside import beside, verdict_of
from iadd.leaderboard.published import counterpart, published_results, whole_accuracy
from iadd.leaderboard.text import leaderboard_text, remark
from iadd.networks import parse_name
from iadd.pipeline.tables import compared

NET = "convnet-d3-w128"
HERE = {"dataset": "cifar10", "network_eval": NET, "network_distill": NET}


def board(*parts, **changes):
    rows = [row | HERE | changes for part in parts for row in part]
    return beside(rank(table(rows)), {"cifar10": "cifar10"})


def test_every_published_value_is_complete_and_unique():
    path = Path(published.__file__).with_name("published.csv")
    rows = published_results()
    with path.open(newline="") as file:
        assert len(rows) == len(list(csv.reader(file))) - 1 > 200
    keys = [(r.dataset, r.ipc, r.method, r.network_eval, r.protocols, r.label_regime) for r in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert 0 < row.accuracy < 1 and (row.std is None or 0 < row.std < 0.1)
        assert row.source and (row.ipc == 0) == (row.method == "whole")
        parse_name(row.network_distill), parse_name(row.network_eval)
        assert row.protocols
    assert {row.method for row in rows if row.label_regime == "soft"} == {
        "datm",
        "pad",
        "softlabel",
    }
    assert "iadd" not in {row.method for row in rows}  # there is no number of its authors
    assert {row.dataset for row in rows} == {*published.SIDES}


def test_values_stand_beside_images_of_their_side_alone(monkeypatch):
    named = {"root": "x", "published": "cifar10"}
    p = plan(datasets=[{"name": "folder", "label": f"side{k}", **named} for k in (32, 28)])
    sides = {"side32": 32, "side28": 28}
    monkeypatch.setattr(p, "about", lambda key: SimpleNamespace(resolution=sides[key]))
    assert compared(p) == {"side32": "cifar10"}
    p = plan(datasets=[{"name": "digits"}])  # nothing is published of them
    monkeypatch.setattr(p, "about", lambda _: SimpleNamespace(resolution=8))
    assert compared(p) == {"digits": "digits"}


@pytest.mark.parametrize(
    ("method", "ipc", "protocol", "regime", "accuracy", "std"),
    [
        ("mtt", 1, "mtt-v1", "hard", 0.463, 0.008),
        ("ftd", 50, "mtt-v1", "hard", 0.738, 0.002),
        ("dc", 10, "dc-v1", "hard", 0.449, 0.005),
        ("random", 1, "mtt-v1", "hard", 0.154, 0.003),
        ("random", 1, "dc-v1", "hard", 0.144, 0.020),
        ("datm", 10, "mtt-v1", "soft", 0.668, 0.002),
        ("softlabel", 1, "mtt-v1", "soft", 0.211, 0.005),
    ],
)
def test_anchors_of_cifar10(method, ipc, protocol, regime, accuracy, std):
    (row,) = (
        r
        for r in published_results()
        if (r.dataset, r.method, r.ipc, r.network_eval) == ("cifar10", method, ipc, NET)
        and protocol in r.protocols
    )
    assert (row.label_regime, row.accuracy, row.std) == (regime, accuracy, std)


def test_every_protocol_of_ours_that_has_published_values_is_known():
    named = {name for row in published_results() for name in row.protocols}
    assert {"mtt-v1", "dc-v1", "datm-v1"} <= named <= {*PROTOCOLS}


def test_published_rows_stand_after_the_measured_ones_and_are_not_ranked():
    found = board(runs("mtt", spread(0.465)), runs("dm", spread(0.3)), runs("random", spread(0.2)))
    measured = [row for row in found if row.source == "measured"]
    told = [row for row in found if row.source == "published"]
    assert found == measured + told
    assert [row.rank_low for row in measured] == [1, 2, 3]
    assert {"whole", "tesla", "att", "ftd", "ddpp"} <= {row.method for row in told}
    assert "datm" not in {row.method for row in told}  # soft labels
    assert "dc" not in {row.method for row in told}  # another protocol
    assert all(row.rank_low is None and row.n_seeds is None and row.citation for row in told)
    (ddpp,) = (row for row in told if row.method == "ddpp")
    assert not ddpp.reconstruction  # the authors' own number
    assert remark(ddpp, found) == "published: arXiv 2211.11004, table 1"
    text = leaderboard_text(found)
    assert text.index("random") < text.index("published: ")
    assert max(map(len, text.splitlines())) <= 100
    assert "46.30 " in text and "+- 0.8" in text


def test_a_measured_row_says_how_it_stands():
    found = board(runs("mtt", spread(0.465)), runs("dm", spread(0.3)), runs("random", spread(0.1)))
    mtt, dm, random = (row for row in found if row.source == "measured")
    assert (mtt.published, mtt.agrees, mtt.more_seeds) == (0.463, "agrees", None)
    assert (dm.agrees, random.agrees) == ("higher", "lower")
    assert "agrees with published 46.3" in remark(mtt, found)
    assert "lower than published 15.4" in remark(random, found)
    (wide,) = (r for r in board(runs("mtt", [[0.44], [0.46], [0.48]])) if r.source == "measured")
    assert wide.agrees == "undecided" and wide.more_seeds > 3
    assert f"({wide.more_seeds} more seeds would settle it)" in remark(wide, found)


@pytest.mark.parametrize(
    "changes",
    [
        {"network_distill": "convnet-d3-w32"},
        {"network_eval": "convnet-d3-w32"},
        {"tuned": True},
        {"dataset": "other"},
        {"protocol": "mtt-v1-noaug"},
        {"ipc": 2},
    ],
)
def test_nothing_published_stands_where_the_benchmark_is_another(changes):
    row, *others = board(runs("mtt", spread(0.465)), **changes)
    assert row.agrees is None and row.published is None
    assert {row.method for row in others} <= {"whole"}  # which is the same at every ipc


def test_label_regimes_keep_their_published_values_apart():
    found = board(runs("datm", spread(0.47)), label_regime="soft")
    assert {row.method for row in found} == {"datm", "pad", "softlabel", "whole"}
    assert {row.label_regime for row in found} == {"soft"}


def test_the_whole_data_s_networks_are_its_units():
    found = board(runs("mtt", spread(0.465)), runs("whole", [[0.85, 0.846, 0.848]], ipc=0))
    (whole,) = (r for r in found if (r.method, r.source) == ("whole", "measured"))
    assert (whole.published, whole.agrees) == (0.848, "agrees")
    assert whole_accuracy("cifar10", NET) == 0.848
    assert whole_accuracy("cifar10", "convnet-d3-w32") is None


def test_the_counterpart_of_a_narrow_network_is_the_wide_one():
    narrow = {"network_eval": "convnet-d3-w32", "network_distill": "convnet-d3-w32"}
    (row,) = board(runs("mtt", spread(0.36)), **narrow)
    near = counterpart(row, "cifar10")
    assert (near.network_eval, near.accuracy) == (NET, 0.463)
    assert verdict_of(row, near) == ("lower", None)
    assert counterpart(replace(row, network_eval="mlp"), "cifar10") is None
    across = counterpart(replace(row, ipc=10, network_eval="vgg11"), "cifar10")
    assert (across.network_eval, across.accuracy) == ("vgg11", 0.503)
