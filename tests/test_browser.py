"""The site in a real browser: quiet, usable by mouse, keyboard and link, and without scripts."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up_site import site
from made_up_tables import runs, spread
from test_site import evaluations, pictures, traces

from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.site.content import About, Content
from iadd.leaderboard.site.page import write, write_assets
from iadd.leaderboard.site.pages import results

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("IADD_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser found: none of {', '.join(NAMES)}, no IADD_CHROMIUM"
)
PAGES = (
    "index.html",
    "results.html",
    "methods/iadd.html",
    "data/digits/ipc1.html",
    "runs/digits/iadd-ipc1-seed1.html",
    "differences/digits-ipc1.html",
    "costs.html",
    "transfer.html",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    names = {"digits": ["even", "odd"]}
    return site(folder, evaluations(), traces(), pictures(folder), title="digits", classes=names)


class Seen:
    """A page, and what it said and asked for."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: Path, anchor: str = "") -> Any:
        self.page.goto("about:blank")
        self.page.goto(path.as_uri() + anchor)
        return self.page


@pytest.fixture
def seen(browser: Any) -> Iterator[Seen]:
    found = Seen(browser)
    yield found
    found.context.close()


def body(page: Any) -> list[list[str]]:
    """The texts of the first table's rows."""
    return page.eval_on_selector(
        "table", "t => [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.innerText))"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_complains_asks_the_network_or_shuts_anybody_out(
    browser: Any, made: Path, scheme: str
) -> None:
    seen = Seen(browser, color_scheme=scheme)
    for name in PAGES if scheme == "light" else PAGES[3:6]:
        page = seen.open(made / name)
        for folded in page.query_selector_all("details"):
            folded.evaluate("one => { one.open = true; }")
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        grave = [f"{v['id']}: {n['html'][:90]}" for v in found for n in v["nodes"]]
        assert not [v for v in found if v["impact"] in ("serious", "critical")], (name, grave)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        page.set_viewport_size({"width": 360, "height": 700})
        narrow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert max(wide, narrow) <= 0, (name, "is wider than the window")
        page.set_viewport_size({"width": 1280, "height": 900})
    assert not seen.said
    assert all(url.startswith(("file://", "data:", "about:")) for url in seen.asked), seen.asked
    seen.context.close()


def test_results_are_filtered_and_the_address_brings_them_back(made: Path, seen: Seen) -> None:
    page = seen.open(made / "results.html")
    everything = len(body(page))
    assert everything == 19
    page.get_by_role("combobox", name="Method").select_option("mtt")
    page.get_by_role("combobox", name="Network").select_option("mlp")
    some = body(page)
    assert [row[0] for row in some] == ["mtt", "mtt"] and {row[4] for row in some} == {"mlp"}
    address = page.url.split("#")[1]
    assert address == "Method=mtt&Network=mlp"
    other = seen.open(made / "results.html", f"#{address}&sort=9-desc")
    assert [row[9] for row in body(other)] == ["86.10", "83.40"]
    assert other.get_by_role("combobox", name="Network").input_value() == "mlp"
    other.get_by_role("searchbox", name="Search").fill("nothing of this kind")
    assert "No matching" in other.inner_text("tbody")
    page = seen.open(made / "results.html", "#main")  # an anchor is no filter
    assert len(body(page)) == everything


def test_tables_are_sorted_by_keyboard(made: Path, seen: Seen) -> None:
    for name, heading in (("results.html", "Accuracy"), ("data/digits/ipc1.html", "Accuracy")):
        page = seen.open(made / name)
        head = page.locator("thead").first.get_by_role("columnheader", name=re.compile(heading))
        place = head.evaluate("one => one.cellIndex")
        head.get_by_role("button").press("Enter")
        playwright.expect(head).to_have_attribute("aria-sort", "ascending")
        values = [float(row[place]) for row in body(page) if row[place] != "–"]
        assert values == sorted(values) and len(set(values)) > 2, name
    assert not seen.said


def test_what_is_seen_is_what_is_downloaded(made: Path, seen: Seen) -> None:
    page = seen.open(made / "results.html", "#Method=iadd*&sort=9-asc")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    assert waiting.value.suggested_filename == "results.csv"
    lines = list(csv.reader(Path(waiting.value.path()).read_text().splitlines()))
    assert lines[0][:3] == ["Method", "Rank", "Data set"]
    assert lines[1:] == body(page)


def test_a_cell_that_spreadsheets_would_compute_is_text(tmp_path: Path, seen: Seen) -> None:
    folder = site(tmp_path, [row | {"network_eval": "=1+2"} for row in runs("mtt", spread(0.8))])
    page = seen.open(folder / "results.html")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    lines = list(csv.reader(Path(waiting.value.path()).read_text().splitlines()))
    assert lines[1][4] == "'=1+2"


def test_the_theme_is_switched_and_kept(made: Path, seen: Seen) -> None:
    page = seen.open(made / "index.html")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate(colour)
    assert dark != light
    assert seen.open(made / "methods.html").evaluate(colour) == dark


def test_without_scripts_every_row_is_there(browser: Any, made: Path) -> None:
    seen = Seen(browser, java_script_enabled=False)
    for name, rows in (("results.html", 19), ("runs.html", 29), ("data/digits/ipc1.html", 6)):
        page = seen.open(made / name)
        assert page.locator("table").first.locator("tbody tr").count() == rows, name
        assert page.locator("table").first.is_visible()
        assert page.get_by_role("button").count() == page.get_by_role("combobox").count() == 0
    assert seen.page.get_by_role("link", name="mtt", exact=True).first.is_visible()
    seen.context.close()


def test_ten_thousand_rows_are_small_and_quick(tmp_path: Path, seen: Seen) -> None:
    """The limit leaves room for a busy machine; benchmarks/README.md has the time."""
    row: dict[str, Any] = {"protocol": "mtt-v1", "label_regime": "hard", "tuned": False}
    row |= {"source": "measured", "reconstruction": False, "network_distill": "convnet-d3-w128"}
    row |= {"n_seeds": 5, "n_networks": 25, "rank_low": 3, "rank_high": 17}
    row |= {"accuracy_low": 0.61, "accuracy_high": 0.64, "published": 0.653, "agrees": "lower"}
    board = [
        LeaderboardRow(
            **row,
            dataset=f"imagenet-subset-{k // 500}",
            ipc=(1, 10, 50)[k % 3],
            network_eval=("convnet-d3-w128", "resnet18", "vgg11", "alexnet")[k // 3 % 4],
            method=f"method-number-{k % 40}",
            accuracy_mean=0.5 + k / 40_000,
            accuracy_std=0.01,
        )
        for k in range(10_000)
    ]
    content = Content({}, {}, {}, {}, About(), board, pd.DataFrame())
    write_assets(tmp_path)
    (big,) = results.pages(content)
    write(big, tmp_path, "big", [])
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 2e6
    cdp = seen.context.new_cdp_session(seen.page)
    cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
    page = seen.open(tmp_path / "results.html")
    page.get_by_role("combobox", name="Method").select_option("method-number-7")
    found = {m["name"]: m["value"] for m in cdp.send("Performance.getMetrics")["metrics"]}
    assert found["TaskDuration"] < 3
    assert "250" in page.inner_text(".dt-info")
    assert not seen.said
