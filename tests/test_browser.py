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
from every_page import every_page
from made_up_site import site
from made_up_tables import by_class, confusion, runs, spread
from PIL import Image

from iadd.leaderboard.ranking import Positive
from iadd.leaderboard.rows import LeaderboardRow
from iadd.leaderboard.site import build_site
from iadd.leaderboard.site.content import About, Content
from iadd.leaderboard.site.page import write, write_assets
from iadd.leaderboard.site.pages import results

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
axe_base = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("IADD_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser found: none of {', '.join(NAMES)}, no IADD_CHROMIUM"
)
PAGES = (
    *("index.html", "results.html", "data/digits/ipc1.html", "methods.html", "methods/iadd.html"),
    *("differences.html", "differences/digits-ipc1.html", "controls.html", "costs.html"),
    *("transfer.html", "weights/digits/ipc1.html", "privacy.html", "submissions.html"),
    *("searches.html", "runs.html", "runs/digits/iadd-ipc1-seed1.html"),
)
"""One of each kind."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-software-rasterizer"]
        found = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    build_site(**every_page(folder), out=folder / "site")
    return folder / "site"


class Seen:
    """A page, and what it said and asked for."""

    def __init__(self, browser: Any, width: int = 1280, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self.dismiss)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def dismiss(self, dialog: Any) -> None:
        """What a script in somebody's words would open."""
        self.said.append(dialog.message)
        dialog.dismiss()

    def open(self, path: Path, anchor: str = "") -> Any:
        self.page.goto("about:blank")
        self.page.goto(path.as_uri() + anchor)
        return self.page


def downloaded(page: Any, button: Any) -> tuple[str, list[list[str]]]:
    """The name and the lines of the CSV that a button gives."""
    with page.expect_download() as waiting:
        button.click()
    lines = csv.reader(Path(waiting.value.path()).read_text().splitlines())
    return waiting.value.suggested_filename, list(lines)


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


def test_every_kind_of_page_is_looked_at(made: Path) -> None:
    def kind(path: str) -> str:
        return path.split("/")[0]

    found = {kind(str(page.relative_to(made))) for page in made.rglob("*.html")}
    assert found == set(map(kind, PAGES))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_complains_asks_the_network_or_shuts_anybody_out(
    browser: Any, made: Path, scheme: str
) -> None:
    """Light on a desk, dark on a phone."""
    width = 1280 if scheme == "light" else 360
    seen = Seen(browser, color_scheme=scheme, width=width)
    seen.context.add_init_script(path=axe_base.AXE_FILE_PATH)  # once, not anew for every page
    judge, page = axe.Axe("0"), seen.page
    for name in PAGES:
        page.goto((made / name).as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        options: dict[str, Any] = {"preload": False, "resultTypes": ["violations"]}
        if scheme == "dark":  # differs in its colours alone
            options["runOnly"] = ["color-contrast"]
        found = judge.run(page, options=options).response["violations"]
        grave = [f"{v['id']}: {n['html'][:90]}" for v in found for n in v["nodes"]]
        assert not [v for v in found if v["impact"] in ("serious", "critical")], (name, grave)
        beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert beyond <= 0, (name, "is wider than the window")
    assert not seen.said
    assert all(url.startswith(("file://", "data:", "about:")) for url in seen.asked), seen.asked
    seen.context.close()


def test_a_medical_board_is_seen_whole_on_a_desk(tmp_path: Path, seen: Seen) -> None:
    """Rule: with balanced accuracy, sensitivity, specificity and AUROC beside the rest."""
    accuracies = (0.5, 0.85, 1.0)  # few test images: intervals that end at 100 %, so in many digits
    matrices = [confusion(accuracy, (32, 8)) for accuracy in accuracies]
    rows = [
        row | {"confusion": matrix, **by_class(matrix)}
        for method in ("iadd", "random")
        for row, matrix in zip(runs(method, [[a] for a in accuracies]), matrices, strict=True)
    ]
    folder = site(tmp_path, rows, positive={"digits": Positive("covid", 1)})
    page = seen.open(folder / "data/digits/ipc1.html")
    assert "Sensitivity" in page.inner_text("thead") and " to 100" in page.inner_text("tbody")
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
    )


def test_results_are_filtered_and_the_address_brings_them_back(made: Path, seen: Seen) -> None:
    page = seen.open(made / "results.html")
    everything = len(body(page))
    assert everything == 19
    page.get_by_role("combobox", name="Method").select_option("mtt")
    page.get_by_role("combobox", name="Network").select_option("mlp")
    some = body(page)
    assert [row[0] for row in some] == ["mtt", "mtt"] and {row[3] for row in some} == {"mlp"}
    address = page.url.split("#")[1]
    assert address == "Method=mtt&Network=mlp"
    other = seen.open(made / "results.html", f"#{address}&sort=Accuracy,+%25-desc")
    assert [row[4] for row in body(other)] == ["86.10", "83.40"]
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
    page = seen.open(made / "results.html", "#Method=iadd*&sort=Accuracy,+%25-asc")
    name, (heads, *lines) = downloaded(page, page.get_by_role("button", name="Download"))
    assert name == "results.csv" and heads[:3] == ["Method", "Rank", "Images a class"]
    shown = [row[:7] + row[8:] for row in body(page)]  # but for the drawn interval
    assert [line[: len(shown[0])] for line in lines] == shown and len(lines) == 4
    alike = heads[len(shown[0]) :]  # stands above the table and in every line of the file
    assert alike == [
        *("Data set", "Protocol", "Labels", "Settings", "Status"),
        *("Balanced, %", "Published, %", "Agreement"),
    ]
    assert lines[0][len(shown[0]) :][:3] == ["digits", "mtt-v1", "hard"]


def test_a_table_with_a_name_is_downloaded_as_it_is_sorted(made: Path, seen: Seen) -> None:
    page = seen.open(made / "data/digits/ipc1.html")
    head = page.get_by_role("columnheader", name="Method").first
    head.get_by_role("button").press("Enter")
    name, (heads, *lines) = downloaded(page, page.get_by_role("button", name="as CSV").first)
    assert name == "ranks-digits-ipc1-convnet-mtt-v1-hard.csv" and heads[1] == "Method"
    methods = [line[1].split()[0] for line in lines]
    assert methods == sorted(methods) and len(methods) == 6


def test_a_table_that_is_cut_says_so_until_its_end_is_seen(browser: Any, made: Path) -> None:
    phone = Seen(browser, width=380)
    page = phone.open(made / "data/digits/ipc1.html")
    region = page.locator(".scroll", has=page.locator("table")).first
    playwright.expect(region).to_contain_class("cut")
    region.evaluate("one => { one.scrollLeft = one.scrollWidth; }")
    playwright.expect(region).not_to_contain_class("cut")
    phone.context.close()


def test_rows_draw_their_intervals_and_lead_to_method_board_and_run(made: Path, seen: Seen) -> None:
    page = seen.open(made / "results.html", "#Method=mtt&Network=convnet&Images+a+class=1")
    (row,) = body(page)
    low, mean, high = float(row[5]), float(row[4]), float(row[6])
    bar = "b => [b.offsetLeft + b.offsetWidth / 2, b.parentElement.offsetWidth]"
    at, width = page.eval_on_selector("td .track b", bar)
    first, last = map(float, page.inner_text("th.wide").removesuffix(" %").split(" to "))
    assert at / width == pytest.approx((mean - first) / (last - first), abs=0.03)
    ends = page.eval_on_selector("td .track i", "b => [b.offsetLeft, b.offsetWidth]")
    assert ends[1] / width == pytest.approx((high - low) / (last - first), abs=0.03)
    board = seen.open(made / "data/digits/ipc10.html")
    board.get_by_role("link", name="all results of digits, 10 images a class").click()
    board.wait_for_url("**/results.html*")
    board.wait_for_selector("table")
    assert {row[2] for row in body(board)} == {"10"}
    page = seen.open(made / "results.html", "#Method=mtt&Network=convnet&Images+a+class=1")
    for name, heading in (("mtt", "mtt"), ("3", "mtt on digits, 1 image a class, seed 0")):
        page.get_by_role("link", name=name, exact=True).click()
        assert page.inner_text("h1") == heading
        page.go_back()


def test_a_cell_that_spreadsheets_would_compute_is_text(tmp_path: Path, seen: Seen) -> None:
    folder = site(tmp_path, [row | {"network_eval": "=1+2"} for row in runs("mtt", spread(0.8))])
    page = seen.open(folder / "results.html")
    _, lines = downloaded(page, page.get_by_role("button", name="Download"))
    assert lines[1][4] == "'=1+2" and "Accuracy, %" in lines[0]


def test_words_of_others_stay_words_where_scripts_make_rows(tmp_path: Path, seen: Seen) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;"
    rows = [r | {"network_eval": n} for n in (evil, "mlp") for r in runs(evil, spread(0.8))]
    folder = site(tmp_path, rows + runs("mtt", spread(0.7)), title=evil)
    page = seen.open(folder / "results.html")
    assert {row[0] for row in body(page)} == {evil, "mtt"}
    page.get_by_role("combobox", name="Network").select_option(evil)
    assert [row[0] for row in body(page)] == [evil]
    page.get_by_role("combobox", name="Network").select_option("")
    page.get_by_role("link", name=evil, exact=True).first.click()
    assert page.inner_text("h1") == evil
    assert not seen.said


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


def test_pictures_of_many_classes_leave_pages_short(seen: Seen, made: Path, tmp_path: Path) -> None:
    """Rule: 200 classes are a picture of 13,600 pixels, of which a page shows some at a time."""
    folder = Path(shutil.copytree(made, tmp_path / "site"))
    for picture in (folder / "pictures").rglob("*.png"):
        Image.new("RGB", (286, 13_600), "red").save(picture)
    for name in ("data/digits/ipc1.html", "runs/digits/iadd-ipc1-seed0.html"):
        page = seen.open(folder / name)
        shown = page.locator("img[src*=pictures]").first
        shown.scroll_into_view_if_needed()
        page.wait_for_function("e => e.naturalHeight == 13600", arg=shown.element_handle())
        box = page.locator(".tall" if "runs" in name else ".thumbs a").first.bounding_box()
        assert box and 200 < box["height"] <= 900 and box["width"] >= 250
        assert page.evaluate("e => e.clientHeight / e.clientWidth", shown.element_handle()) > 40
        assert page.evaluate("document.documentElement.scrollHeight") < 9000
