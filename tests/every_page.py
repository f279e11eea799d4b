"""What a site with every kind of page is made from, of made-up numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from made_up_site import picture, write_tables
from made_up_tables import trial
from test_exposure import row as exposed
from test_site import evaluations, pictures, traces
from test_site_exposure import SUBMISSION
from test_site_weights import look

from iadd.leaderboard.exposure import PRIVACY
from iadd.leaderboard.provenance import SUBMISSIONS
from iadd.leaderboard.results import table_of, write_table
from iadd.leaderboard.site import RunKey, Search
from iadd.leaderboard.weights import TRACE_FILE, WEIGHTS, weights_of


def every_page(folder: Path) -> dict[str, dict[Any, Path]]:
    """The arguments of `build_site`, but for its folder; the files lie in `folder`."""
    trials = [trial(0, 0.5), trial(1, 0.6), trial(0, 0.5, 1, "confirmed")]
    about = {"title": "digits", "classes": {"digits": ["even", "odd"]}}
    about |= {"controls": [("iadd", "mtt"), ("iadd", "random")]}
    tables = write_tables(folder, evaluations(), traces(), trials, **about)
    looks = [look(k, seed, 0.5, effective_share=0.05) for seed in (0, 1) for k in (0, 30)]
    more: dict[str, tuple[Any, Any]] = {
        "weights": (weights_of(table_of(looks, TRACE_FILE)), WEIGHTS),
        "privacy": ([exposed(dataset="digits", method="iadd")], PRIVACY),
        "submissions": ([replace(SUBMISSION, dataset="digits", method="dc")], SUBMISSIONS),
    }
    for name, (rows, schema) in more.items():
        tables[name] = folder / f"{name}.parquet"
        write_table(rows, tables[name], schema, {})
    return {
        "tables": tables,
        "pictures": pictures(folder),
        "searches": {Search("digits", "mtt", 1): picture(folder / "search.png")},
        "pairs": {RunKey("digits", 1, "iadd", False, 0): picture(folder / "pairs.png")},
    }
