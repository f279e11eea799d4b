"""What sets give away in words, for terminal and page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from iadd.leaderboard.exposure import Exposure, Interval, PrivacyRow, summaries
from iadd.leaderboard.text import MARK, per_class

EXPLAINED = (
    "Copies: images that are training images. Near: images that lie nearer to a training image "
    "than 95 % of held-out images do; fewer than 5 % are to be expected of a set that gives "
    "nothing away.",
    "Data: the attack asks which images were in the data that were distilled; an AUC of 0.5 and "
    "1 % true positives (at 1 % false ones) mean that it finds nothing. Chosen: which images stand "
    "in the set as they are.",
    "An attack that finds nothing proves nothing: a stronger one may (SPEC, section 10).",
)

ENOUGH = 368
"""Held-out images from which 95 % intervals tell where a threshold of 1 % false positives lies."""


def explained(rows: Sequence[PrivacyRow]) -> tuple[str, ...]:
    """What the tables of these rows mean."""
    fewest = min((row.held_out for row in rows), default=ENOUGH)
    if fewest >= ENOUGH:
        return EXPLAINED
    few = (
        f"{fewest} held-out images are too few to tell where 1 % of false ones lies ({ENOUGH} are "
        "needed): the true positives are uncertain, and the lower end of their interval is 0."
    )
    return (*EXPLAINED, few)


def words(found: Exposure) -> dict[str, str]:
    """A line's cells by their headings."""
    return {
        "method": found.method + " tuned" * found.tuned + MARK * found.reconstruction,
        "seeds": str(found.seeds),
        "copies %": f"{100 * found.copies:.0f}",
        "near: pixels %": f"{100 * found.pixel_near:.0f}",
        "features %": f"{100 * found.feature_near:.0f}",
        "data: AUC": _interval(found.data_auc, 1, 3),
        "TPR %": _interval(found.data_tpr, 100, 1),
        "chosen: AUC": _interval(found.chosen_auc, 1, 3),
    }


def _interval(found: Interval | None, factor: float, digits: int) -> str:
    if found is None:
        return "-"
    value, low, high = (f"{factor * part:.{digits}f}" for part in found)
    return f"{value} ({low}-{high})"


def exposed_groups(rows: Sequence[PrivacyRow]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Each data set and ipc in words, with the cells of its methods."""
    for (dataset, ipc), found in groupby(summaries(rows), key=lambda e: (e.dataset, e.ipc)):
        yield f"{dataset}, {per_class(ipc)}", [words(line) for line in found]


def exposure_text(rows: Sequence[PrivacyRow]) -> str:
    """What each method's sets give away, for a terminal of 110 columns: a table an ipc."""
    text = io.StringIO()
    console = Console(width=110, file=text, color_system=None, markup=False, highlight=False)
    for title, lines in exposed_groups(rows):
        console.print(title)
        table = Table(*lines[0], box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for line in lines:
            table.add_row(*line.values())
        console.print(table)
    for sentence in explained(rows):
        console.print(sentence)
    return text.getvalue()
