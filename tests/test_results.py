"""Tables that refuse what is not theirs, and a leaderboard that hides nothing."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iadd.leaderboard import results
from iadd.leaderboard.results import (
    EVALUATIONS,
    LEADERBOARD,
    SPEC_VERSION,
    TRACES,
    collect,
    label_robust_score,
    leaderboard_text,
    rank,
    read_metadata,
    read_table,
    write_csv,
    write_table,
)


def evaluation(method="mtt", ipc=1, seed=0, eval_seed=0, accuracy=0.9, **changes):
    row = {
        "spec_version": SPEC_VERSION,
        "protocol": "mtt-v1",
        "benchmark": "digits",
        "dataset": "digits",
        "ipc": ipc,
        "method": method,
        "label_kind": "hard",
        "network_distill": "convnet",
        "network_eval": "convnet",
        "seed": seed,
        "eval_seed": eval_seed,
        "accuracy": accuracy,
        "train_accuracy": 1.0,
        "status": "ok",
        "expert_seconds": None,
        "distill_seconds": 10.0 + seed,
        "evaluate_seconds": 2.0,
        "host_peak_bytes": 10**9,
        "device_peak_bytes": None,
        "image_bytes": 2560,
        "label_bytes": 80,
        "params": json.dumps({"lr": 0.1}),
        "source_hash": "ab12",
        "git_commit": None,
        "torch_version": "2.15.0",
        "device": "cpu",
    }
    assert not changes.keys() - row.keys()
    return row | changes


def runs(method, accuracies, ipc=1, **changes):
    """Rows of a method from accuracies[seed][eval_seed]."""
    return [
        evaluation(method, ipc, seed, eval_seed, accuracy, **changes)
        for seed, networks in enumerate(accuracies)
        for eval_seed, accuracy in enumerate(networks)
    ]


def spread(mean, step=0.002):
    """Three seeds of two networks about a mean."""
    return [[mean - step, mean], [mean, mean + step], [mean - step, mean + step]]


def trace(iteration, seed=0, **changes):
    row = dict.fromkeys(TRACES.names)
    row |= {"dataset": "digits", "ipc": 1, "method": "iadd", "seed": seed, "iteration": iteration}
    row |= {"loss": 0.5, "loss_unweighted": 0.6, "seconds": 1.0, "event": "", "path": "reference"}
    return row | changes


def table(rows):
    return pd.DataFrame(rows, columns=EVALUATIONS.names)


def line(board, method, **where):
    for name, value in where.items():
        board = board[board[name] == value]
    (row,) = board[board["method"] == method].to_dict("records")
    return row


# ---- the contract --------------------------------------------------------------------------------


CONTRACT = {
    "evaluations": """spec_version protocol benchmark dataset ipc method label_kind network_distill
        network_eval seed eval_seed accuracy train_accuracy status expert_seconds distill_seconds
        evaluate_seconds host_peak_bytes device_peak_bytes image_bytes label_bytes params
        source_hash git_commit torch_version device""",
    "leaderboard": """dataset ipc network_eval protocol method n_seeds n_networks accuracy_mean
        accuracy_std accuracy_low accuracy_high rank_low rank_high lrs ars distill_seconds bytes
        source label_kind n_diverged n_failed""",
    "traces": """dataset ipc method seed iteration loss loss_unweighted step_size weight_mean
        weight_std weight_min weight_max weight_effective validation_accuracy seconds event path""",
    "trials": """benchmark dataset method ipc trial config rung iteration validation_accuracy
        seconds device status seed spec_version""",
}


def test_columns_are_the_contract_s():
    for name, columns in CONTRACT.items():
        assert getattr(results, name.upper()).names == columns.split()
    assert EVALUATIONS.field("seed").type == pa.int64()
    assert EVALUATIONS.field("accuracy").type == pa.float64()
    assert EVALUATIONS.field("params").type == pa.string()


def test_tables_need_no_torch():
    code = "import sys, iadd.leaderboard.results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- writing and reading -------------------------------------------------------------------------


def test_round_trip_keeps_values_types_and_nulls(tmp_path):
    path = tmp_path / "new" / "seed0.parquet"
    rows = [
        evaluation(seed=2**62 + 1, eval_seed=np.int64(3), accuracy=np.float64(1 / 3)),
        evaluation(accuracy=None, status="failed", device_peak_bytes=2**53 + 1),
    ]
    write_table(rows, path, EVALUATIONS, {"job": "a", "ipc": 1})
    back = read_table(path, EVALUATIONS)
    assert list(back.columns) == EVALUATIONS.names
    assert back["seed"].tolist() == [2**62 + 1, 0]
    assert back["accuracy"][0] == 1 / 3
    assert math.isnan(back["accuracy"][1])
    assert back["device_peak_bytes"].isna().tolist() == [True, False]
    assert back["host_peak_bytes"].tolist() == [10**9, 10**9]
    assert read_metadata(path) == {"job": "a", "ipc": 1}
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert list(path.parent.iterdir()) == [path]


def test_same_rows_same_bytes_and_a_frame_writes_like_its_rows(tmp_path):
    rows = [*runs("mtt", spread(0.9)), evaluation("dc", accuracy=None, status="failed")]
    for name in ("a", "b"):
        write_table(rows, tmp_path / name, EVALUATIONS, {"b": 1, "a": [2, None]})
    write_table(
        read_table(tmp_path / "a", EVALUATIONS),
        tmp_path / "c",
        EVALUATIONS,
        {"a": [2, None], "b": 1},
    )
    contents = {(tmp_path / name).read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_empty_tables_round_trip(tmp_path):
    write_table([], tmp_path / "t", TRACES, {})
    assert read_table(tmp_path / "t", TRACES).empty


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": "zero"}, "'seed' = 'zero' must be int64"),
        ({"seed": 1.5}, "'seed' = 1.5 must be int64"),
        ({"seed": True}, "'seed' = True must be int64"),
        ({"seed": 2**63}, "'seed' must be int64"),
        ({"host_peak_bytes": 1.5}, "'host_peak_bytes' = 1.5 must be int64"),
        ({"seed": None}, "row 0: column 'seed' must not be null"),
        ({"evaluate_seconds": "2 s"}, "'evaluate_seconds' = '2 s' must be double"),
        ({"accuracy": 84.8}, r"'accuracy' = 84.8 must be a fraction in \[0, 1\]"),
        ({"train_accuracy": -0.5}, "'train_accuracy' = -0.5 must be a fraction"),
        ({"status": "fine"}, "'status' = 'fine' must be one of 'ok', 'diverged', 'failed'"),
        ({"label_kind": "hrad"}, "'label_kind' = 'hrad' must be one of 'hard', 'soft'"),
        ({"params": {"lr": 1}}, "'params' = .* must be string"),
    ],
)
def test_a_bad_value_is_one_line_naming_file_and_column(tmp_path, changes, words):
    path = tmp_path / "t.parquet"
    with pytest.raises(ValueError, match=words) as caught:
        write_table([evaluation() | changes], path, EVALUATIONS, {})
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_or_unknown_column_is_named(tmp_path):
    row = evaluation()
    with pytest.raises(ValueError, match="unknown column 'acuracy'"):
        write_table([row, row | {"acuracy": 1}], tmp_path / "t", EVALUATIONS, {})
    del row["device"]
    with pytest.raises(ValueError, match="row 1: column 'device' is missing"):
        write_table([evaluation(), row], tmp_path / "t", EVALUATIONS, {})
    with pytest.raises(ValueError, match="'event' = 'rolback'"):
        write_table([trace(0, event="rolback")], tmp_path / "t", TRACES, {})
    assert not list(tmp_path.iterdir())


def test_a_table_stays_as_it_was_when_the_new_one_cannot_be_written(tmp_path):
    path = tmp_path / "t"
    write_table([evaluation()], path, EVALUATIONS, {})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="fraction"):
        write_table([evaluation(accuracy=2)], path, EVALUATIONS, {})
    assert path.read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        write_table([evaluation()], tmp_path / "file" / "t", EVALUATIONS, {})


def test_another_table_another_spec_other_columns_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    write_table([trace(0)], path, TRACES, {})
    with pytest.raises(
        ValueError, match=r"t.parquet: holds table 'traces', expected 'evaluations'"
    ):
        read_table(path, EVALUATIONS)
    older = pa.schema([f for f in TRACES if f.name != "path"], metadata=TRACES.metadata)
    write_table([{n: v for n, v in trace(0).items() if n != "path"}], path, older, {})
    with pytest.raises(ValueError, match=r"holds columns .*event:string', expected .*path:string"):
        read_table(path, TRACES)
    monkeypatch.setattr(results, "SPEC_VERSION", "0.9")
    write_table([trace(0)], path, TRACES, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"holds spec version '0.9', expected '{SPEC_VERSION}'"):
        read_table(path, TRACES)


def test_what_is_no_table_of_ours_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(ValueError, match=r"t.parquet: .*no such file"):
        read_table(path, TRACES)
    write_table([trace(0)], path, TRACES, {})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"t.parquet: not a readable Parquet table"):
        read_table(path, TRACES)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match="not a table of ours"):
        read_table(path, TRACES)


# ---- collecting ----------------------------------------------------------------------------------


def job(folder, rows, schema=EVALUATIONS, name="seed0.parquet"):
    write_table(rows, folder / name, schema, {"job": str(name)})
    return folder / name


def test_collect_gives_the_same_bytes_from_any_order_and_place(tmp_path):
    parts = [
        [evaluation(m, i, s, e) for e in (1, 0)] for m in "ba" for i in (10, 1) for s in (1, 0)
    ]
    here = [job(tmp_path / f"ipc={k}", part) for k, part in enumerate(parts)]
    there = [job(tmp_path / "other", part, name=f"{9 - k}.parquet") for k, part in enumerate(parts)]
    one = collect(here, tmp_path / "one.parquet", EVALUATIONS)
    collect(reversed(there), tmp_path / "two.parquet", EVALUATIONS)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    key = list(one[["ipc", "method", "seed", "eval_seed"]].itertuples(index=False, name=None))
    assert key == sorted(key)
    assert len(key) == 16
    pd.testing.assert_frame_equal(one, read_table(tmp_path / "one.parquet", EVALUATIONS))


def test_collect_refuses_the_same_identity_twice_naming_both_files(tmp_path):
    one = job(tmp_path / "a", runs("mtt", [[0.9, 0.8]]))
    two = job(tmp_path / "b", [evaluation(eval_seed=1, accuracy=0.5)])
    with pytest.raises(ValueError, match="eval_seed 1") as caught:
        collect([two, one], tmp_path / "out.parquet", EVALUATIONS)
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)
    assert not (tmp_path / "out.parquet").exists()
    with pytest.raises(ValueError, match="no evaluations files"):
        collect([], tmp_path / "out.parquet", EVALUATIONS)


def test_a_trace_keeps_its_history_through_collecting(tmp_path):
    history = [trace(0), trace(10), trace(10, event="rollback", loss=math.nan), trace(5), trace(10)]
    paths = [job(tmp_path, history, TRACES, "b"), job(tmp_path, [trace(0, seed=1)], TRACES, "a")]
    table = collect(paths, tmp_path / "out", TRACES)
    assert table["iteration"].tolist() == [0, 10, 10, 5, 10, 0]
    assert table["event"].tolist() == ["", "", "rollback", "", "", ""]


# ---- ranking -------------------------------------------------------------------------------------


def test_methods_that_cannot_be_told_apart_share_a_range():
    rows = [
        *runs("a", spread(0.90)),
        *runs("b", spread(0.901)),
        *runs("c", spread(0.70)),
        *runs("d", spread(0.60)),
    ]
    board = rank(table(rows))
    found = {r["method"]: (r["rank_low"], r["rank_high"]) for r in board.to_dict("records")}
    assert found == {"a": (1, 2), "b": (1, 2), "c": (3, 3), "d": (4, 4)}
    assert board["method"].tolist() == ["b", "a", "c", "d"]
    row = line(board, "c")
    assert row["accuracy_mean"] == pytest.approx(0.70, abs=1e-9)
    # Seeds' means 0.699, 0.701, 0.700: their standard deviation is 0.001.
    assert row["accuracy_std"] == pytest.approx(0.001)
    assert row["accuracy_low"] < 0.70 < row["accuracy_high"]
    assert (row["n_seeds"], row["n_networks"], row["n_failed"], row["source"]) == (
        3,
        6,
        0,
        "measured",
    )
    assert row["distill_seconds"] == pytest.approx(11.0)  # seeds took 10, 11, 12
    assert row["bytes"] == 2640


def test_the_leaderboard_fits_its_schema(tmp_path):
    board = rank(
        table(runs("a", spread(0.9)) + runs("b", [[0.5]]) + runs("whole", [[0.99]], ipc=0))
    )
    assert list(board.columns) == LEADERBOARD.names
    write_table(board, tmp_path / "l.parquet", LEADERBOARD, {})
    pd.testing.assert_frame_equal(read_table(tmp_path / "l.parquet", LEADERBOARD), board)
    write_csv(board, tmp_path / "l.csv")
    back = pd.read_csv(tmp_path / "l.csv")
    assert back["accuracy_mean"].tolist() == board["accuracy_mean"].tolist()
    assert back["rank_low"].isna().tolist() == [False, True, True]


def test_one_method_s_interval_does_not_depend_on_the_others_or_on_order():
    rows = runs("a", spread(0.90, 0.01)) + runs("b", spread(0.91, 0.02), protocol="dc-v1")
    alone = rank(table(rows))
    more = [*runs("c", spread(0.95)), *reversed(rows), *runs("c", spread(0.5), ipc=10)]
    both = rank(table(more))
    for method in "ab":
        old, new = line(alone, method), line(both, method)
        assert all(old[n] == new[n] for n in ("accuracy_low", "accuracy_high", "accuracy_std"))
    many = np.linspace(0.8, 0.9, 12)[:, None] ** 2
    names = rank(table(runs("x", many) + runs("y", many)))
    ten = rank(table(runs("x", many, ipc=10)))
    lows = {line(board, m)["accuracy_low"] for board, m in ((names, "x"), (names, "y"), (ten, "x"))}
    assert len(lows) == 3


def test_whole_is_the_ceiling_of_every_cell_and_has_no_rank():
    rows = [
        *runs("random", spread(0.310)),
        *runs("random", spread(0.4), ipc=10),
        *runs("mtt", spread(0.653)),
        *runs("whole", [[0.847, 0.848, 0.849]], ipc=0),
        *runs("random", spread(0.2), network_eval="mlp"),
    ]
    board = rank(table(rows))
    for ipc in (1, 10):
        row = line(board, "whole", ipc=ipc)
        assert row["accuracy_mean"] == pytest.approx(0.848)
        assert pd.isna(row["rank_low"])
        assert pd.isna(row["lrs"])
        assert 0.84 < row["accuracy_low"] < row["accuracy_high"] < 0.86  # networks are its units
    assert board[board["ipc"] == 1]["method"].tolist()[:3] == ["mtt", "random", "whole"]
    assert line(board, "mtt")["lrs"] == pytest.approx(0.30162, abs=5e-6)
    assert line(board, "mtt")["rank_high"] == 1
    assert line(board, "random", network_eval="convnet", ipc=1)["lrs"] == pytest.approx(
        label_robust_score(0.848, 0.310, 0.310)
    )
    assert pd.isna(line(board, "random", network_eval="mlp")["lrs"])
    only = rank(table(runs("whole", [[0.9]], ipc=0)))
    assert only["ipc"].tolist() == [0]


def test_ars_needs_both_methods_without_augmentation():
    def of(protocol, **means):
        return [r for m, mean in means.items() for r in runs(m, spread(mean), protocol=protocol)]

    rows = of("mtt-v1", random=0.3, mtt=0.7, dc=0.5) + of("mtt-v1-noaug", random=0.3, mtt=0.5)
    board = rank(table(rows))
    beta = (math.exp(0.3) - math.exp(-1)) / (math.e - math.exp(-1))
    assert line(board, "mtt", protocol="mtt-v1")["ars"] == pytest.approx(beta)
    assert pd.isna(line(board, "mtt", protocol="mtt-v1-noaug")["ars"])
    assert pd.isna(line(board, "dc", protocol="mtt-v1")["ars"])


def test_failures_are_counted_and_leave_a_method_unranked():
    good, other = runs("good", spread(0.6)), runs("lost", spread(0.9))
    other[4] |= {"accuracy": None, "status": "failed"}
    diverged = runs("diverged", spread(0.8))
    diverged[0] |= {"accuracy": 0.1, "status": "diverged"}
    gone = runs("gone", [[None, None]] * 3, status="diverged")
    board = rank(table(good + other + diverged + gone))
    lost, wild, none = (line(board, name) for name in ("lost", "diverged", "gone"))
    assert (lost["n_networks"], lost["n_failed"], lost["n_diverged"]) == (6, 1, 0)
    assert pd.isna(lost["rank_low"])
    assert lost["accuracy_mean"] == pytest.approx(np.mean([0.899, 0.901, 0.902]))
    assert (wild["n_networks"], wild["n_failed"], wild["n_diverged"]) == (6, 0, 1)
    assert wild["accuracy_mean"] < 0.8 - 0.1
    assert wild["rank_high"] == 2
    assert (none["n_seeds"], none["n_failed"]) == (3, 6)
    assert pd.isna(none["accuracy_mean"])
    assert pd.isna(none["accuracy_low"])
    assert pd.isna(none["rank_low"])


def test_too_few_seeds_are_shown_unranked():
    rows = runs("few", spread(0.95)[:2]) + runs("one", [[0.5, 0.6]]) + runs("a", spread(0.9))
    board = rank(table(rows))
    assert line(board, "a")["rank_high"] == 1
    assert pd.isna(line(board, "few")["rank_low"])
    assert not pd.isna(line(board, "few")["accuracy_low"])
    assert pd.isna(line(board, "one")["accuracy_low"])
    board = rank(table(rows), min_seeds=1)
    assert line(board, "few")["rank_low"] == 1
    assert pd.isna(line(board, "one")["rank_low"])


def test_soft_labels_are_ranked_among_themselves():
    rows = runs("mtt", spread(0.6)) + runs("datm", spread(0.9), label_kind="soft")
    rows += runs("random", spread(0.3)) + runs("whole", [[0.95, 0.96]], ipc=0)
    board = rank(table(rows))
    assert line(board, "mtt")["rank_low"] == 1
    assert line(board, "datm")["rank_high"] == 1
    assert pd.isna(line(board, "datm")["lrs"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 0, "eval_seed": 0}, "seed 0, eval_seed 0 is there 2 times"),
        ({"params": '{"lr":0.2}'}, "mtt in digits, 1, convnet, mtt-v1: params is"),
        ({"label_kind": "soft"}, "label_kind is hard and soft"),
        ({"network_distill": "mlp"}, "network_distill is convnet and mlp"),
        ({"accuracy": 90.0}, "accuracy 90.0 must be a fraction"),
    ],
)
def test_rank_refuses_what_must_not_be_averaged(changes, words):
    rows = [*runs("mtt", spread(0.9)), evaluation(seed=3) | changes]
    with pytest.raises(ValueError, match=words):
        rank(table(rows))


def test_the_printed_table_fits_100_columns_and_says_what_is_wrong():
    rows = [
        *runs("random", spread(0.31)),
        *runs("iadd", spread(0.93), distill_seconds=12345.6),
        *runs("mtt", spread(0.93)),
        *runs("forgetting", spread(0.5)[:2]),
        *runs("whole", [[0.98, 0.99]], ipc=0),
    ]
    rows[0] |= {"status": "diverged"}
    text = leaderboard_text(rank(table(rows)))
    assert max(map(len, text.splitlines())) <= 100
    assert "digits, 1 image a class, evaluated by convnet, protocol mtt-v1" in text
    lines = {words[1]: row for row in text.splitlines() if len(words := row.split()) > 5}
    assert re.match(r"\s*1-2 +iadd +93\.00 +\S+ to \S+ +3 x 2 ", lines["iadd"])
    assert "1 diverged" in lines["random"]
    assert "few seeds" in lines["forgetting"]
    assert "ceiling" in lines["whole"]
    assert text.index("mtt ") < text.index("random") < text.index("whole")
    assert "\x1b" not in text


def test_paths_may_be_anywhere(tmp_path: Path):
    """A folder named like a partition does not add a column."""
    path = job(tmp_path / "method=dc" / "ipc=10", [evaluation()])
    assert read_table(path, EVALUATIONS)["method"].tolist() == ["mtt"]
