"""The page: one file that stands alone, says what the tables say, and hides no failure."""

import base64
import re
import struct
from html.parser import HTMLParser

import pandas as pd
import pytest
from made_up_tables import by_class, confusion, evaluation, rank, runs, spread, table, trace

from iadd.leaderboard.beside import beside
from iadd.leaderboard.ranking import Positive
from iadd.leaderboard.results import write_table
from iadd.leaderboard.rows import EVALUATIONS, LEADERBOARD, TRACES
from iadd.leaderboard.site import build_site
from iadd.leaderboard.site.matrices import _shares

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
NET = "convnet-d3-w128"
VOID = {"meta", "img", "br", "link", "input", "hr"}


def picture(path, width=90, height=9):
    path.write_bytes(PNG + struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00")
    return path


def evaluations():
    means = {"random": 0.71, "mtt": 0.93, "iadd": 0.931, "kcenter": 0.5}
    rows = [
        evaluation(
            m,
            ipc,
            s,
            e,
            mean + 0.002 * (s - e) + 0.002 * (s == 1) * (m == "iadd") - drop + 0.003 * ipc,
            network_eval=network,
            distill_seconds=30.0,
        )
        for m, mean in means.items()
        for ipc in (1, 10)
        for s in range(3)
        for e in range(2)
        for network, drop in (("convnet", 0), ("mlp", 0.1))
    ]
    rows += [evaluation("whole", 0, s, 0, 0.98 + 0.001 * s) for s in range(3)]
    rows += [evaluation("dc", 1, s, 0, 0.8) for s in range(2)]
    rows[-1] |= {"accuracy": None, "confusion": None, "status": "failed"}
    diverged = next(r for r in rows if (r["method"], r["ipc"]) == ("iadd", 10))
    diverged |= {"status": "diverged", "confusion": None}
    return [
        row | {"distill_status": "diverged"} if row["method"] == "mtt" and row["seed"] == 2 else row
        for row in rows
    ]


def traces():
    rows = []
    for method in ("mtt", "iadd"):
        own = {"weight_effective": 0.875} if method == "iadd" else {}
        for seed in range(2):
            for i in range(0, 101, 10):
                row = {"loss": 1 - 0.005 * i, "step_size": 0.02, "seconds": 5.0, **own}
                if (seed, i) == (1, 50):
                    row |= {"event": "rollback", "loss": None}
                rows.append(trace(i, seed, method=method, **({"path": "unrolled"} | row)))
    return rows


def write_tables(folder, rows, history, positive=None):
    write_table(rows, folder / "evaluations.parquet", EVALUATIONS, {})
    write_table(history, folder / "traces.parquet", TRACES, {})
    board = beside(rank(table(rows), positive=positive), {"cifar10": "cifar10"})
    write_table(board, folder / "leaderboard.parquet", LEADERBOARD, {})
    names = ("leaderboard", "evaluations", "traces")
    return {name: folder / f"{name}.parquet" for name in names}


@pytest.fixture
def inputs(tmp_path):
    """Arguments of build_site, apart from `out`."""
    folder = tmp_path / "tables"
    written = write_tables(folder, evaluations(), traces())
    pictures = {
        ("digits", method, ipc): picture(folder / f"{method}{ipc}.png", 90, 9 * ipc)
        for method in ("mtt", "iadd")
        for ipc in (1, 10)
    }
    return written | {
        "pictures": pictures,
        "title": "Digits <b>& co</b>",
    }


class Page(HTMLParser):
    """Checks that tags are balanced and gathers the text of each table's rows."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.rows = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture
def page(inputs, tmp_path):
    out = tmp_path / "site" / "index.html"
    build_site(**inputs, out=out)
    return out.read_text("utf-8")


def test_it_is_one_well_formed_page_and_a_plot(page, tmp_path):
    parsed = Page(page)
    assert sorted(p.name for p in (tmp_path / "site").iterdir()) == ["accuracy.png", "index.html"]
    assert (tmp_path / "site" / "accuracy.png").read_bytes().startswith(PNG)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.count("table") == parsed.count("caption") > 0
    assert all(a.get("scope") for tag, a in parsed.tags if tag == "th")
    assert all(a.get("alt") for tag, a in parsed.tags if tag == "img")
    assert parsed.count("h1") == 1
    assert dict(parsed.tags)["html"]["lang"] == "en"


def test_it_asks_nothing_of_the_network(page):
    for _, attributes in Page(page).tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attributes.get(name, "#")[:15] in ("#", "data:image/png;") or attributes[
                name
            ].startswith("#")
    assert not re.search(r"@import|url\((?!#)|<script|<link", page)


def test_the_title_is_text_and_not_markup(page):
    assert "<h1>Digits &lt;b&gt;&amp; co&lt;/b&gt;</h1>" in page


def test_the_ranking_shows_ranks_intervals_and_remarks(page):
    rows = {row[1]: row for row in Page(page).rows if len(row) == 10}  # the last table of a method
    first = next(row for row in Page(page).rows if len(row) == 10 and row[1].startswith("mtt"))
    assert first[0] == "1–2"
    assert first[2] == "93.40"  # 0.93 + 0.003 + 0.002 * (1 - 0.5)
    low, high = map(float, first[3].split(" – "))
    assert low < 93.4 < high
    assert first[5] == "3 × 2"
    assert first[8] == "30.0 s"
    texts = [row[1] for row in Page(page).rows if len(row) == 10]
    assert "iadd reconstruction 1 network diverged" in texts
    assert "dc 1 network failed" in texts
    assert "whole ceiling" in texts
    assert rows["whole ceiling"][0] == "–"


def test_the_cards_name_who_may_be_best(page):
    best = re.findall(r'<div class="best">(.*?)</div>', page)
    assert best == ["iadd or mtt", "iadd or mtt"]
    assert "all the real data reach 98.1&nbsp;%" in " ".join(page.split())


def test_across_architectures_every_network_has_a_column(page):
    rows = Page(page).rows
    assert ["Method", "convnet", "mlp"] in rows
    row = next(row for row in rows if len(row) == 3 and row[0] == "random")
    assert row[1].startswith("71.4 ±")
    assert row[2].startswith("61.4 ±")
    whole = next(row for row in rows if len(row) == 3 and row[0] == "whole")
    assert whole[2] == "–"


def test_plots_follow_the_theme_and_name_every_method(page):
    plots = re.findall(r"<figure class=\"card plot\".*?</figure>", page, re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        assert "#0b5fa5" not in plot
        assert "var(--s0)" in plot
        for method in ("random", "mtt", "iadd*", "kcenter", "whole"):
            assert f">{method}</text>" in plot
    assert "prefers-color-scheme: dark" in page


def test_pictures_are_inside(page, inputs):
    content = inputs["pictures"]["digits", "iadd", 10].read_bytes()
    assert base64.b64encode(content).decode() in page
    assert page.count("data:image/png;base64,") == 4 + 2  # and a heat map for each ipc


def test_runs_show_the_loss_the_method_s_own_columns_and_what_went_wrong(page):
    row = next(row for row in Page(page).rows if len(row) == 11 and row[0].startswith("iadd"))
    assert row[0] == "iadd reconstruction"
    assert row[1:4] == ["1", "2", "100"]
    assert row[5] == "1 → 0.5"
    assert row[7:9] == ["1", "–"]
    assert row[10] == "unrolled"
    own = ["iadd reconstruction", "1", "weight_effective", "0.875 → 0.875"]
    assert own in Page(page).rows


def test_the_notes_are_honest(page):
    text = re.sub(r"\s+", " ", re.sub(r"<.*?>", "", page))
    assert "iadd is a reconstruction" in text
    assert "2 to 3 here" in text
    assert "1 of dc failed (digits, 1 a class, convnet)" in text
    assert "1 of iadd diverged (digits, 10 a class, convnet)" in text
    assert "1 of mtt (digits, 1 a class)" in text  # a distillation
    assert "device cpu, 2 threads · torch 2.15.0" in text
    assert "feedbeef01" in text


def test_same_tables_same_bytes(inputs, tmp_path):
    for name in ("one", "two"):
        build_site(**inputs, out=tmp_path / name / "index.html")
    for name in ("index.html", "accuracy.png"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two


def test_sparse_tables_still_make_a_page(tmp_path):
    """No traces, no pictures, one seed of one method: nothing to rank, and it says so."""
    written = write_tables(tmp_path, [evaluation("random", 1, 0, 0, 0.5)], [])
    out = tmp_path / "index.html"
    build_site(**written, pictures={}, out=out, title="Few")
    text = out.read_text("utf-8")
    row = next(row for row in Page(text).rows if len(row) == 10 and row[1].startswith("random"))
    assert row[:4] == ["–", "random few seeds", "50.00", "–"]
    assert "No ranking" in text
    assert "reconstruction" not in text
    assert "every network was trained to its end" in text
    assert "No distillation diverged" in text


def test_label_regimes_and_tuned_settings_have_tables_and_cards_of_their_own(tmp_path):
    rows = [
        *runs("mtt", spread(0.8)),
        *runs("random", spread(0.5)),
        *runs("datm", spread(0.9), label_regime="soft"),
        *runs("mtt", spread(0.85), tuned=True, params="{}"),
    ]
    out = tmp_path / "index.html"
    written = write_tables(tmp_path, rows, [trace(0, method="mtt", tuned=True)])
    build_site(**written, pictures={}, out=out, title="Apart", budget="9 trials")
    text = " ".join(re.sub(r"<.*?>", "", out.read_text("utf-8")).split())
    for group in ("hard labels", "hard labels, tuned", "soft labels"):
        assert f"1 image a class · {group} · evaluated by convnet" in text
    assert text.count("settings found on validation data by searches of 9 trials each") == 1
    best = re.findall(r'<div class="best">(.*?)</div>', out.read_text("utf-8"))
    assert best == ["mtt", "datm"]
    assert "random has nothing to tune" in text
    assert "different kinds of labels are ranked apart" in text


def test_balanced_accuracy_is_shown_where_the_classes_are_imbalanced(tmp_path, page):
    assert "Balanced" not in page
    rows = [
        row | {"balanced_accuracy": 0.61, "confusion": confusion(row["accuracy"], (900, 100))}
        for row in runs("mtt", spread(0.8))
    ]
    out = tmp_path / "balanced" / "index.html"
    written = write_tables(tmp_path, rows, [])
    warnings = {"digits": ["class 'nine' has 4 test images"]}
    build_site(**written, pictures={}, out=out, title="Imbalanced", warnings=warnings)
    assert "class &#39;nine&#39; has 4 test images" in out.read_text("utf-8")
    row = next(row for row in Page(out.read_text("utf-8")).rows if row[1:2] == ["mtt"])
    assert len(row) == 11
    assert row[4].startswith("61.00 ±")
    assert "Balanced" in out.read_text("utf-8")


def test_reconstructions_come_from_the_rows(tmp_path):
    rows = runs("new", spread(0.8), reconstruction=True) + runs("mtt", spread(0.7))
    out = tmp_path / "index.html"
    build_site(**write_tables(tmp_path, rows, []), pictures={}, out=out, title="New")
    text = out.read_text("utf-8")
    assert "<strong>new</strong> is a reconstruction" in text
    assert [row[1] for row in Page(text).rows if len(row) == 10][1:] == [
        "new reconstruction",
        "mtt",
    ]


def test_bad_inputs_are_named_and_nothing_is_written(inputs, tmp_path):
    out = tmp_path / "out" / "index.html"
    with pytest.raises(ValueError, match="holds table 'traces', expected 'evaluations'"):
        build_site(**(inputs | {"evaluations": inputs["traces"]}), out=out)
    for bad, words in (
        (tmp_path / "gone.png", "gone.png: picture cannot be read"),
        (__file__, "no PNG"),
    ):
        pictures = {("digits", "mtt", 1): tmp_path / bad}
        with pytest.raises(ValueError, match=words):
            build_site(**(inputs | {"pictures": pictures}), out=out)
    write_table([], tmp_path / "empty", LEADERBOARD, {})
    with pytest.raises(ValueError, match="empty: has no rows"):
        build_site(**(inputs | {"leaderboard": tmp_path / "empty"}), out=out)
    assert not out.parent.exists()


def embedded(text, alt):
    """Size of the first embedded picture whose description begins so."""
    (uri, *_) = re.findall(
        rf'<img class="matrix" src="data:image/png;base64,([^"]+)"[^>]*alt="{alt}', text
    )
    return struct.unpack(">II", base64.b64decode(uri)[16:24])


def test_published_values_stand_apart_on_page_and_plot(tmp_path):
    here = {"dataset": "cifar10"} | dict.fromkeys(("network_eval", "network_distill"), NET)
    rows = [row | here for row in runs("mtt", spread(0.465)) + runs("dm", spread(0.3))]
    out = tmp_path / "index.html"
    build_site(**write_tables(tmp_path, rows, []), pictures={}, out=out, title="Published")
    text = out.read_text("utf-8")
    told = [row for row in Page(text).rows if len(row) == 10]
    names = [row[1] for row in told[1:]]
    assert names[:2] == ["mtt agrees with published 46.3", "dm higher than published 26.0"]
    assert all("published: " in name for name in names[2:]) and len(names) > 5
    tesla = next(row for row in told if row[1].startswith("tesla"))
    assert tesla[0] == "–" and tesla[2:4] == ["48.50", "±0.8"] and tesla[5] == "–"
    assert text.count('<tr class="published">') == len(names) - 2
    (plot,) = re.findall(r"<figure class=\"card plot\".*?</figure>", text, re.DOTALL)
    assert ">published</text>" in plot and ">tesla</text>" not in plot
    assert "is never ranked" in text or "never ranked with measured" in text
    best = re.findall(r'<div class="best">(.*?)</div>', text)
    assert best == ["mtt"]


def test_no_plot_holds_two_label_regimes(tmp_path):
    """Rule: what is ranked apart is drawn apart."""
    rows = [
        *runs("mtt", spread(0.8)),
        *runs("datm", spread(0.9), label_regime="soft"),
        *runs("softlabel", spread(0.7), label_regime="soft"),
        *runs("sre2l", spread(0.6), label_regime="soft+teacher"),
    ]
    out = tmp_path / "index.html"
    build_site(**write_tables(tmp_path, rows, []), pictures={}, out=out, title="Apart")
    plots = re.findall(
        r"<figure class=\"card plot\".*?</figure>", out.read_text("utf-8"), re.DOTALL
    )
    drawn = [
        {m for m in ("mtt", "datm", "softlabel", "sre2l") if f">{m}</text>" in p} for p in plots
    ]
    assert drawn == [{"mtt"}, {"datm", "softlabel"}, {"sre2l"}]
    captions = [re.search(r"<strong>(.*?)</strong>", plot)[1] for plot in plots]
    assert captions == [
        f"digits, 1 image a class, {words}"
        for words in ("hard labels", "soft labels", "soft labels of a teacher")
    ]


def test_transfer_has_a_mean_over_the_other_networks_and_a_heat_map(tmp_path):
    rows = [
        row | {"network_eval": network}
        for network, drop in (("convnet", 0), ("mlp", 0.2), ("vgg11", 0.3))
        for method, mean in (("mtt", 0.8), ("iadd", 0.85))
        for row in runs(method, spread(mean - drop - 0.1 * (method == "iadd" and drop > 0)))
    ]
    out = tmp_path / "index.html"
    build_site(**write_tables(tmp_path, rows, []), pictures={}, out=out, title="Transfer")
    text = out.read_text("utf-8")
    assert ["Method", "convnet", "mlp", "vgg11", "Mean of the others", "Its rank"] in Page(
        text
    ).rows
    found = {row[0]: row for row in Page(text).rows if len(row) == 6}
    assert found["mtt"][1].startswith("80.0 ±") and found["mtt"][4].startswith("55.0 ±")
    assert (found["mtt"][5], found["iadd reconstruction"][5]) == ("1", "2")
    width, height = embedded(text, "Accuracy by method and evaluation network, digits, 1 image")
    assert width > height > 50
    assert "evaluated by the other networks (mean)" in text


@pytest.mark.parametrize("classes", [2, 25])
def test_confusion_matrices_are_pictures(classes, tmp_path):
    counts = [1000] * classes
    rows = [
        row | {"confusion": (matrix := confusion(row["accuracy"], counts)), **by_class(matrix)}
        for method in ("mtt", "dm", "random", "herding")
        for row in runs(method, spread(0.8))
    ]
    rows[0] |= {"confusion": None, "status": "diverged"}
    out, names = tmp_path / "index.html", {"digits": [f"kind {k}" for k in range(classes)]}
    written = write_tables(tmp_path, rows, [])
    build_site(**written, pictures={}, out=out, title="Classes", classes=names)
    text = out.read_text("utf-8")
    assert "1 image a class, hard labels: confusion matrices" in text
    width, height = embedded(text, "Confusion matrix of each method, digits, 1 image a class")
    assert width > 600 and height > 400  # two lines of three


def test_shares_of_a_class_are_means_over_networks():
    found = _shares(pd.Series([[8, 2, 0, 10], [4, 6, 5, 5]]))
    assert found.tolist() == [[pytest.approx(0.6), pytest.approx(0.4)], [0.25, 0.75]]


def test_a_positive_class_and_what_is_known_of_experts(tmp_path):
    rows = runs("mtt", spread(0.8)) + runs("dm", spread(0.6))
    written = write_tables(tmp_path, rows, [], {"digits": Positive("covid", 1)})
    out = tmp_path / "index.html"
    told = {"digits": ["experts digits convnet standard: 84.1 % on validation"]}
    build_site(**written, pictures={}, out=out, title="Ill", experts=told)
    text = out.read_text("utf-8")
    row = next(row for row in Page(text).rows if row[1:2] == ["mtt"])
    assert row[4].startswith("80.0 ±") and row[6].startswith("0.800 ±0.0")
    assert "recall of covid" in text
    assert "<li>experts digits convnet standard: 84.1 % on validation</li>" in text
