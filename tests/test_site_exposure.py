"""The pages on privacy and on submissions: numbers as the tables have them, words escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_up_site import Parsed, picture, write_tables
from made_up_tables import evaluation
from test_exposure import row

from iadd.leaderboard.exposure import PRIVACY, PrivacyRow
from iadd.leaderboard.provenance import SUBMISSIONS, SubmissionRow
from iadd.leaderboard.results import write_table
from iadd.leaderboard.site import RunKey, build_site

SUBMISSION = SubmissionRow(
    dataset="d", ipc=1, method="m", seed=0, file="a.safetensors", sha256="ab" * 32, images=2,
    image_bytes=1024, label_bytes=0, label_kind="hard", transform="standard", step_size=None,
    authors="<script>alert(1)</script>", paper="A & B", url="https://example.org/?a=1", about=None,
)  # fmt: skip


def build(
    folder: Path, exposed: list[PrivacyRow], submitted: list[SubmissionRow], **pairs: Path
) -> Path:
    rows = [evaluation(dataset="d", ipc=1, method="m", seed=seed) for seed in range(3)]
    tables = write_tables(folder / "tables", rows)
    for name, schema, those in (
        ("privacy", PRIVACY, exposed),
        ("submissions", SUBMISSIONS, submitted),
    ):
        tables[name] = folder / f"{name}.parquet"
        write_table(those, tables[name], schema, {})
    keys: dict[RunKey, Path] = {RunKey("d", 1, name, False, 0): p for name, p in pairs.items()}
    build_site(tables, {}, {}, folder / "site", keys)
    return folder / "site"


def test_privacy_is_told_with_intervals_and_the_nearest_pairs(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {
        "chosen_auc": 0.9, "chosen_auc_low": 0.8, "chosen_auc_high": 1.0,
        "chosen_tpr": 0.5, "chosen_tpr_low": 0.2, "chosen_tpr_high": 0.8,
    }  # fmt: skip
    rows = [row(), row(method="r", **chosen), row(method="r", seed=1, **chosen)]
    site = build(tmp_path, rows, [], m=picture(tmp_path / "pairs.png"))
    page = Parsed(site / "privacy.html")
    line = page.row("r")
    assert (line["Seeds"], line["Copies, %"], line["Chosen: AUC"]) == (
        "2",
        "50.0",
        "0.900 0.800–1.000",
    )
    assert page.row("m")["Chosen: AUC"] == "–"
    assert page.row("m")["Data: AUC"].startswith("0.749 0.7")
    assert ["pair 1", "0", "0.0", "0", "0.0"] in page.rows
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert images == ["pictures/d/m-ipc1-seed0-pairs.png"]
    assert (site / "pictures/d/m-ipc1-seed0-pairs.png").exists()
    assert "proves nothing" in page.text
    assert "5 % of held-out images lie within 1.05 (" in page.text


def test_submissions_are_told_in_the_makers_words_which_are_escaped(tmp_path: Path) -> None:
    site = build(tmp_path, [], [SUBMISSION])
    page = Parsed(site / "submissions.html")
    line = page.row("m")
    assert line["Authors"] == "<script>alert(1)</script>" and line["SHA-256"] == "ab" * 32
    assert line["Paper"] == "A & B · https://example.org/?a=1" and line["Size"] == "1 kB"
    assert "<script>alert" not in (site / "submissions.html").read_text()
    assert not (site / "privacy.html").exists()  # nothing was asked


def test_a_benchmark_without_either_has_no_such_pages(tmp_path: Path) -> None:
    site = build(tmp_path, [], [])
    assert not (site / "submissions.html").exists()
    assert "Privacy" not in Parsed(site / "index.html").text
