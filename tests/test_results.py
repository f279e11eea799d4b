"""Tables that refuse what is not theirs, and how jobs' files become one."""

import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_tables import evaluation, rank, runs, spread, table, trace

from iadd.artifacts import SPEC_VERSION
from iadd.leaderboard import gathering, results, rows
from iadd.leaderboard.gathering import collect
from iadd.leaderboard.results import (
    read_arrow,
    read_metadata,
    read_rows,
    read_table,
    table_of,
    write_csv,
    write_table,
)
from iadd.leaderboard.rows import (
    EVALUATIONS,
    LEADERBOARD,
    TRACES,
    EvaluationRow,
    LeaderboardRow,
    TraceRow,
)

# ---- the contract --------------------------------------------------------------------------------


CONTRACT = {
    "evaluations": """spec_version protocol benchmark dataset ipc method source tuned label_regime
        reconstruction network_distill network_eval seed eval_seed accuracy balanced_accuracy
        confusion recall specificity auroc train_accuracy status distill_status expert_seconds
        distill_seconds validation_seconds evaluate_seconds distill_gpu_seconds evaluate_gpu_seconds
        host_peak_bytes device_peak_bytes image_bytes label_bytes params source_hash git_commit
        torch_version device""",
    "leaderboard": """dataset ipc network_eval protocol label_regime tuned method source
        reconstruction network_distill n_seeds n_networks accuracy_mean accuracy_std accuracy_low
        accuracy_high balanced_accuracy_mean balanced_accuracy_low balanced_accuracy_high ranked_by
        rank_low rank_high lrs ars recall positive sensitivity_mean sensitivity_low sensitivity_high
        specificity_mean specificity_low specificity_high auroc auroc_low auroc_high distill_seconds
        validation_seconds evaluate_seconds gpu_seconds host_peak_bytes device_peak_bytes bytes
        whole_bytes bytes_share transmission_seconds whole_transmission_seconds epochs batch
        default_step_size train_seconds
        whole_train_seconds whole_train_source n_diverged n_failed n_diverged_runs
        n_collapsed_runs test_images
        test_imbalance published agrees more_seeds citation""",
    "comparisons": """dataset ipc network_eval protocol label_regime tuned score method other
        n_seeds difference low high p p_holm significant more_seeds""",
    "traces": """dataset ipc method tuned seed iteration loss step_size validation_accuracy seconds
        event path extra""",
    "trials": """benchmark dataset method ipc trial config rung iteration validation_accuracy
        seconds device status seed spec_version""",
}


def test_columns_are_the_contract_s():
    for name, columns in CONTRACT.items():
        assert getattr(rows, name.upper()).names == columns.split()
    assert EVALUATIONS.field("seed").type == pa.int64()
    assert EVALUATIONS.field("accuracy").type == pa.float64()
    assert EVALUATIONS.field("params").type == pa.string()
    assert EVALUATIONS.field("tuned").type == pa.bool_()
    assert EVALUATIONS.field("confusion").type == pa.list_(pa.int32())
    assert not EVALUATIONS.field("label_regime").nullable
    assert EVALUATIONS.field("confusion").nullable


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
    assert list(path.parent.iterdir()) == [path]


def test_same_rows_same_bytes_and_a_table_writes_like_its_rows(tmp_path):
    rows = [*runs("mtt", spread(0.9)), evaluation("dc", accuracy=None, status="failed")]
    for name in ("a", "b"):
        write_table(rows, tmp_path / name, EVALUATIONS, {"b": 1, "a": [2, None]})
    arrow = table_of([EvaluationRow(**row) for row in rows], EVALUATIONS)
    write_table(arrow, tmp_path / "c", EVALUATIONS, {"a": [2, None], "b": 1})
    contents = {(tmp_path / name).read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_confusion_matrices_and_a_method_s_own_trace_columns_round_trip(tmp_path):
    write_table([evaluation(confusion=[3, 1, 0, 4])], tmp_path / "e", EVALUATIONS, {})
    (row,) = read_rows(tmp_path / "e", EvaluationRow)
    assert row == EvaluationRow(**evaluation(confusion=[3, 1, 0, 4]))
    one = trace(3, weight_mean=0.5, weight_max=2, weight_min=None)
    assert one["extra"] == {"weight_mean": 0.5, "weight_max": 2.0}
    write_table([one], tmp_path / "t", TRACES, {})
    assert dict(read_table(tmp_path / "t", TRACES)["extra"][0]) == one["extra"]
    (back,) = read_rows(tmp_path / "t", TraceRow)
    assert dict(back.extra) == one["extra"]


def test_large_tables_are_compressed_and_a_job_s_few_rows_are_not(tmp_path):
    for count, compression in ((10, "UNCOMPRESSED"), (2000, "ZSTD")):
        write_table([trace(k) for k in range(count)], tmp_path / "t", TRACES, {})
        column = pq.ParquetFile(tmp_path / "t").metadata.row_group(0).column(0)
        assert column.compression == compression


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
        ({"label_regime": "hrad"}, "'label_regime' = 'hrad' must be one of 'hard', 'soft'"),
        ({"source": "published"}, "'source' = 'published' must be one of 'measured', 'submitted'"),
        ({"tuned": 1}, "'tuned' = 1 must be bool"),
        ({"confusion": ["one"]}, "'confusion' must be list"),
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
    older = pa.schema([f for f in TRACES if f.name != "event"], metadata=TRACES.metadata)
    write_table([{n: v for n, v in trace(0).items() if n != "event"}], path, older, {})
    with pytest.raises(ValueError, match=r"holds columns .* expected .*event:string"):
        read_table(path, TRACES)
    monkeypatch.setattr(results, "SPEC_VERSION", "0.9")
    write_table([trace(0)], path, TRACES, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"holds spec version '0.9', expected '{SPEC_VERSION}'"):
        read_table(path, TRACES)


def test_what_is_no_table_of_ours_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(ValueError, match=r"t.parquet: no such table; run: iadd run CONFIG"):
        read_table(path, TRACES)
    with pytest.raises(ValueError, match=f"t.parquet: no such table in {Path.cwd()}; run"):
        read_table(Path("t.parquet"), TRACES)
    write_table([trace(0)], path, TRACES, {})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"t.parquet: is no readable Parquet table"):
        read_table(path, TRACES)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match="not a table of ours"):
        read_table(path, TRACES)
    for footer in ("[1]", "{}", '{"metadata": 1}', "[" * 9999, "x"):
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"iadd": footer}), path)
        with pytest.raises(ValueError, match=r"t.parquet: is no readable footer of a table"):
            read_table(path, TRACES)


def test_texts_that_are_no_utf8_and_rows_that_take_no_room_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    write_table([evaluation(benchmark="benchmark" * 9)], path, EVALUATIONS, {})
    wrong = b"\xfe\xff" + b"x" * 79
    path.write_bytes(path.read_bytes().replace(b"benchmark" * 9, wrong))
    for read in (lambda: read_table(path, EVALUATIONS), lambda: read_rows(path, EvaluationRow)):
        with pytest.raises(ValueError, match=r"t.parquet: "):
            read()
    pq.write_table(pa.table({"a": np.zeros(10**6)}), path, compression="zstd")
    with pytest.raises(ValueError, match=r"t.parquet: .*claims 1,000,000 rows in"):
        read_table(path, TRACES)


# ---- collecting ----------------------------------------------------------------------------------


def job(folder, rows, schema=EVALUATIONS, name="seed0.parquet"):
    write_table(rows, folder / name, schema, {"job": str(name)})
    return folder / name


def unchecked(paths):
    """Files of which no spec is expected."""
    return {path: {} for path in paths}


def test_collect_gives_the_same_bytes_from_any_order_and_place(tmp_path):
    parts = [
        [evaluation(m, i, s, e) for e in (1, 0)] for m in "ba" for i in (10, 1) for s in (1, 0)
    ]
    here = [job(tmp_path / f"ipc={k}", part) for k, part in enumerate(parts)]
    there = [job(tmp_path / "other", part, name=f"{9 - k}.parquet") for k, part in enumerate(parts)]
    collect([unchecked(here)], tmp_path / "one.parquet", EVALUATIONS)
    collect([unchecked(reversed(there))], tmp_path / "two.parquet", EVALUATIONS)
    one = read_arrow(tmp_path / "one.parquet", EVALUATIONS)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    columns = ("ipc", "method", "seed", "eval_seed")
    key = list(zip(*(one[name].to_pylist() for name in columns), strict=True))
    assert key == sorted(key)
    assert len(key) == 16
    assert one.to_pylist() == [vars(r) for r in read_rows(tmp_path / "one.parquet", EvaluationRow)]


def test_collect_refuses_the_same_identity_twice_naming_both_files(tmp_path):
    one = job(tmp_path / "a", runs("mtt", [[0.9, 0.8]]))
    two = job(tmp_path / "b", [evaluation(eval_seed=1, accuracy=0.5)])
    with pytest.raises(ValueError, match="eval_seed 1") as caught:
        collect([unchecked([two, one])], tmp_path / "out.parquet", EVALUATIONS)
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)
    assert not (tmp_path / "out.parquet").exists()
    with pytest.raises(ValueError, match="no evaluations files"):
        collect([], tmp_path / "out.parquet", EVALUATIONS)


def test_a_trace_keeps_its_history_through_collecting(tmp_path):
    history = [trace(0), trace(10), trace(10, event="rollback", loss=math.nan), trace(5), trace(10)]
    paths = [job(tmp_path, history, TRACES, "b"), job(tmp_path, [trace(0, seed=1)], TRACES, "a")]
    collect([unchecked(paths)], tmp_path / "out", TRACES)
    table = read_arrow(tmp_path / "out", TRACES)
    assert table["iteration"].to_pylist() == [0, 10, 10, 5, 10, 0]
    assert table["event"].to_pylist() == ["", "", "rollback", "", "", ""]


def test_collect_refuses_rows_of_another_spec_naming_file_key_and_both_sides(tmp_path):
    spec = {"dataset": {"name": "digits"}, "params": {"iterations": 5}, "seed": 0}
    path, out = tmp_path / "seed0.parquet", tmp_path / "out.parquet"
    write_table([evaluation()], path, EVALUATIONS, {"spec": spec, "evaluation": {"epochs": 5}})
    expected = {path: {"spec": spec, "evaluation": {"epochs": 5}}}
    collect([expected], out, EVALUATIONS)
    assert len(read_arrow(out, EVALUATIONS)) == 1
    out.unlink()
    for stale, words in (
        ({"spec": spec, "evaluation": {"epochs": 500}}, "epochs is 5 in the file, 500 expected"),
        ({"spec": spec | {"params": {"iterations": 9}}}, "params.iterations is 5 .* 9 expected"),
        ({"spec": spec | {"precision": "tf32"}}, 'precision is absent .* "tf32" expected'),
        ({"else": {"a": 1}}, "made under another else"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            collect([{path: stale}], out, EVALUATIONS)
        assert str(path) in str(caught.value)
        assert "stale" in str(caught.value)
        assert not out.exists()


def test_collect_names_the_file_whose_texts_are_none(tmp_path):
    blocks = unchecked(job(tmp_path, [evaluation(seed=k)], name=f"{k}.parquet") for k in range(3))
    path = tmp_path / "1.parquet"
    path.write_bytes(path.read_bytes().replace(b"feedbeef0123456789", b"\xfe" * 18))
    with pytest.raises(ValueError, match=r"1.parquet: is no readable Parquet table .*UTF8"):
        collect([blocks], tmp_path / "out", EVALUATIONS)
    assert not (tmp_path / "out").exists()


def test_a_table_collected_in_parts_is_sorted_like_one_collected_at_once(tmp_path, monkeypatch):
    blocks = [
        unchecked(
            job(
                tmp_path / f"{ipc}{method}",
                [evaluation(method, ipc, seed, e) for e in (1, 0)],
                name=f"{seed}",
            )
            for seed in (1, 0)
        )
        for ipc in (1, 10)
        for method in "ab"
    ]
    collect(blocks, tmp_path / "one", EVALUATIONS)
    monkeypatch.setattr(gathering, "PART_ROWS", 3)  # a block has four rows
    collect(blocks, tmp_path / "two", EVALUATIONS)
    assert pq.read_metadata(tmp_path / "two").num_row_groups == 4
    one, two = (read_arrow(tmp_path / name, EVALUATIONS) for name in ("one", "two"))
    assert one.equals(two) and len(one) == 16
    with pytest.raises(ValueError, match="were found after those of"):
        collect(blocks[::-1], tmp_path / "three", EVALUATIONS)
    with pytest.raises(ValueError, match="were found after those of"):
        collect([*blocks, blocks[-1]], tmp_path / "three", EVALUATIONS)
    assert not (tmp_path / "three").exists()


def test_collecting_reads_each_file_once_and_costs_no_more_than_their_number(tmp_path, monkeypatch):
    rows = runs("mtt", [[0.9] * 5])
    paths = [
        job(tmp_path, [row | {"seed": k} for row in rows], name=f"{k:03}.parquet")
        for k in range(400)
    ]
    blocks = [unchecked([path]) for path in paths]
    opened = []
    monkeypatch.setattr(
        gathering, "open_table", lambda *a, real=results.open_table: opened.append(a[0]) or real(*a)
    )
    collect([unchecked(paths)], tmp_path / "out", EVALUATIONS)
    assert opened == paths
    monkeypatch.setattr(gathering, "PART_ROWS", 200)
    began = time.process_time()
    collect(blocks, tmp_path / "out", EVALUATIONS)
    collect([unchecked(paths)], tmp_path / "out", EVALUATIONS)
    # 0.5 s on one slow core; joining frame after frame, with loops over rows, took over 6 s.
    assert time.process_time() - began < 4


def test_the_leaderboard_fits_its_schema(tmp_path):
    rows = runs("a", spread(0.9)) + runs("b", [[0.5]]) + runs("whole", [[0.99]], ipc=0)
    board = rank(table(rows))
    write_table(board, tmp_path / "l.parquet", LEADERBOARD, {})
    assert read_rows(tmp_path / "l.parquet", LeaderboardRow) == board
    frame = read_table(tmp_path / "l.parquet", LEADERBOARD)
    assert list(frame.columns) == LEADERBOARD.names
    assert str(frame["rank_low"].dtype) == "Int64"
    write_csv(board, tmp_path / "l.csv")
    back = pd.read_csv(tmp_path / "l.csv")
    assert list(back.columns) == LEADERBOARD.names
    assert back["accuracy_mean"].tolist() == [row.accuracy_mean for row in board]
    assert back["rank_low"].isna().tolist() == [False, True, True]
    assert back["reconstruction"].tolist() == [False] * 3


def test_paths_may_be_anywhere(tmp_path: Path):
    """A folder named like a partition does not add a column."""
    path = job(tmp_path / "method=dc" / "ipc=10", [evaluation()])
    assert read_table(path, EVALUATIONS)["method"].tolist() == ["mtt"]
