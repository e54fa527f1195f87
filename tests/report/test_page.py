"""The page: what it shows is what the files say, and a browser shows it."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ect.cli.main import main
from ect.report import gallery, nearest
from ect.report.page import distances_first, provenance, table, write_page
from ect.report.tables import tabulate
from tests.helpers.reports import Inputs, read_table

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "ect" / "report" / "templates" / "page.html"
LABELS = {"heun": "Heun, 35 NFE", "one_step": "1 step", "two_step": "2 steps"}
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0",
    "--virtual-time-budget=5000", "--window-size=900,1200", "--hide-scrollbars",
]  # fmt: skip
RECORD = {
    "code": {"commit": "0123abcd", "dirty": False}, "packages": {"torch": "2.14.1"},
    "device": "cpu (x86_64)", "threads": 1, "seconds": 61.5,
}  # fmt: skip
QUESTION = "Is 1 < 2 & “3” > 2?"


def record(folder, name, **changes):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(RECORD | changes))
    return str(path)


@pytest.fixture
def given(tmp_path):
    """The settings of a page with two experiments and a figure, and its records."""
    inputs = Inputs(tmp_path)
    experiments = {}
    for kind, metrics in (("schedules", inputs.study()), ("split", inputs.split())):
        tabulate(kind, metrics, tmp_path / kind, inputs.floor())
        experiments[kind] = {
            "question": QUESTION, "kind": kind, "table": str(tmp_path / f"{kind}.csv"),
            "figure": str(tmp_path / f"{kind}.png"),
        }  # fmt: skip
    for shade, name in enumerate((*experiments, "samples")):
        pixels = np.full((300, 600, 3), 60 * shade, np.uint8)
        pixels[100:200] = np.arange(600)[None, :, None] % 256
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    settings = {"study": "made <up>", "config": "ab" * 32, "samplers": LABELS, "tables": {}}
    figures = {"samples": str(tmp_path / "samples.png")}
    return settings | {"experiments": experiments, "figures": figures}, [record(tmp_path, "one")]


@pytest.fixture
def written(given, tmp_path):
    """The page, by the verb."""
    settings, runs = given
    words = ["write-page", json.dumps(settings), "--template", str(TEMPLATE), "--runs", *runs]
    out = tmp_path / "index.html"
    assert main([*words, "--out", str(out)]) == 0
    return out


def test_a_figure_and_a_table_of_one_name_are_one_part(given, tmp_path):
    settings, runs = given
    nearest.tabulate(Inputs(tmp_path).nearest(), tmp_path / "nearest")
    more = {"tables": {"nearest": str(tmp_path / "nearest.csv")}}
    more |= {"figures": settings["figures"] | {"nearest": settings["figures"]["samples"]}}
    write_page(**settings | more, template=TEMPLATE, runs=runs, out=tmp_path / "index.html")
    found = Page((tmp_path / "index.html").read_text()).texts
    assert found["h2"].count("Are generated images copies of training images?") == 1
    assert any("31.5" in cell for cell in found["td"]) and len(found["table"]) == 4


def strips_of(folder):
    """The pixels of the gallery's strips on the page in a folder, in order."""
    page = (folder / "index.html").read_text()
    found = re.findall(r'class="strip" loading="lazy" src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_the_gallery_has_every_model_that_was_drawn_and_its_nearest_images(
    given, tmp_path, monkeypatch
):
    """Unchanged, of each set the first; of repeats the first set only."""
    settings, runs = given
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    Inputs(tmp_path / "data").dataset()
    runs.append(record(tmp_path / "data", "run"))
    made = {}
    for name in (
        "tune/a/one_step",
        "tune/a/two_step",
        "tune/b/one_step/repeat-1",
        "tune/b/one_step",
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        made[name] = random.integers(0, 256, (12, 8, 8, 1), np.uint8)
        np.savez(folder / "samples.npz", arr_0=made[name])
        runs.append(record(folder, "run"))
    Inputs(tmp_path / "tune/a/two_step").nearest()
    write_page(**settings, template=TEMPLATE, runs=runs, out=tmp_path / "index.html")
    texts = Page((tmp_path / "index.html").read_text()).texts
    assert texts["summary"] == ["tune/a", "tune/b"]
    strips, wanted = strips_of(tmp_path), [made["tune/a/one_step"], made["tune/a/two_step"]]
    wanted += [np.zeros((10, 8, 8, 1), np.uint8), made["tune/b/one_step"]]  # all training images
    assert len(strips) == len(wanted)
    for strip, images in zip(strips, wanted):
        assert np.array_equal(strip, np.concatenate(list(images[:10, ..., 0]), axis=1))
    monkeypatch.setattr(gallery, "ROOM", 3 * 64 * 4 // 3 * 4)  # four images of three sets
    write_page(**settings, template=TEMPLATE, runs=runs, out=tmp_path / "index.html")
    assert {strip.shape for strip in strips_of(tmp_path)} == {(8, 4 * 8)}


class Page(HTMLParser):
    """What a page is made of: text of each kind of element, addresses, ids."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.addresses, self.ids = [], {}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")
        self.addresses += [attrs[key] for key in ("href", "src") if key in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # well formed

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data


def test_questions_are_headings_and_numbers_those_of_the_tables(written, given):
    found = Page(written.read_text())
    assert found.open == [] and found.texts["h2"].count(QUESTION) == 2
    cells = [text.strip() for text in found.texts["td"]]
    for name in given[0]["experiments"]:
        headers, _, *rows = read_table(written.with_name(f"{name}.md"))
        shown = table(written.with_name(f"{name}.md"))
        assert [headers, *rows] == [shown["headers"], *shown["rows"]]
        shown = distances_first(shown, "FD", floor=True)
        assert set(shown["headers"]) <= {text.strip() for text in found.texts["th"]}
        flat = [cell for row in shown["rows"] for cell in row]
        assert any(cells[i : i + len(flat)] == flat for i in range(len(cells)))
    said = [text for text in found.texts["li"] if "best is" in text]
    assert said and all(
        value in cells for text in said for value in re.findall(r"with (.*?\))", text)
    )


HEADERS = ["Start", "Process", "Schedule", "Tuning (kimg)", "Recipe", "FD, 1 step", "FD, 2 steps"]
WIDE = {
    "headers": HEADERS,
    "aligns": list("lllrlrr"),
    "rows": [
        ["ve", "ve", "sigmoid", "60", "", "33 (1)", "18 (1)"],
        ["flow", "flow", "sigmoid", "60", "", "31 (1)", "17 (1)"],
        ["real test images (360)", "", "", "", "", "11.0", "11.0"],
    ],
    "caption": "FD.",
}


def test_of_a_wide_table_distances_come_first_and_what_is_alike_is_said_once():
    found = distances_first(WIDE, "FD", floor=True)
    assert found["headers"] == ["Start", "FD, 1 step", "FD, 2 steps", "Process"]
    assert found["aligns"] == list("lrrl")
    assert found["rows"][1] == ["flow", "31 (1)", "17 (1)", "flow"]
    assert found["rows"][2] == ["real test images (360)", "11.0", "11.0", ""]
    assert found["caption"] == "FD. In all rows: Schedule sigmoid, Tuning (kimg) 60."


def test_what_tells_rows_apart_stays_before_the_distances():
    rows = [[*row[:2], schedule, *row[3:]] for row, schedule in zip(WIDE["rows"], "ab")]
    found = distances_first(WIDE | {"rows": rows}, "FD", floor=False)
    assert found["headers"] == ["Start", "Schedule", "FD, 1 step", "FD, 2 steps", "Process"]


def test_a_narrow_table_and_one_row_lose_nothing():
    narrow = {key: WIDE[key][:4] for key in ("headers", "aligns")}
    narrow |= {"rows": [row[:4] for row in WIDE["rows"]], "caption": "FD."}
    assert distances_first(narrow, "FD", floor=True) == narrow
    one = distances_first(WIDE | {"rows": WIDE["rows"][:1]}, "FD", floor=False)
    assert sorted(one["headers"]) == sorted(HEADERS) and one["caption"] == "FD."


def test_it_needs_no_other_file_and_every_link_leads_somewhere(written, given):
    found = Page(written.read_text())
    inside = [address for address in found.addresses if address.startswith("#")]
    assert {address[1:] for address in inside} == set(found.ids)
    assert len(found.ids) == len(set(found.ids)) == 4
    held = [base64.b64decode(a.partition(",")[2]) for a in found.addresses if a not in inside]
    blocks = given[0]["experiments"].values()
    files = [block[key] for block in blocks for key in ("table", "figure")]
    files += given[0]["figures"].values()
    assert all(Path(path).read_bytes() in held for path in files)
    assert all(a.startswith("data:") for a in found.addresses if a not in inside)


def test_captions_are_those_of_snakemakes_report(written):
    text = html.unescape(" ".join(written.read_text().split()))
    assert "are beyond noise, the sentences say. Large markers" in text
    assert "What does tuning do to single images?" in text and "{%" not in text


def test_provenance_is_that_of_the_records(tmp_path):
    other = {"code": {"commit": "0123abcd", "dirty": True}, "packages": {"torch": "2.6.0"}}
    runs = [record(tmp_path, "one"), record(tmp_path, "two"), record(tmp_path, "three", **other)]
    facts = dict(provenance(runs))
    assert "commit 0123abcd (2 jobs)" in facts["code"]
    assert "commit 0123abcd, with changes that were not committed (1 job)" in facts["code"]
    assert facts["packages"] == "torch 2.14.1 and 2.6.0" and facts["devices"] == "cpu (x86_64)"
    assert (
        facts["time of these jobs, summed"] == "3 min 04 s" and facts["jobs with a record"] == "3"
    )


def test_a_classifier_at_chance_is_told(tmp_path):
    good = record(tmp_path, "one", test_accuracy=0.98)
    bad = record(tmp_path, "two", test_accuracy=0.11, at_chance=True)
    assert "the classifier is right about" not in dict(provenance([good]))
    told = dict(provenance([good, bad]))["the classifier is right about"]
    assert told.startswith("11.0% of test images: that of chance")


def test_the_same_files_give_the_same_bytes(given, tmp_path):
    settings, runs = given
    for name in ("a", "b"):
        write_page(**settings, template=TEMPLATE, runs=runs, out=tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("spoil", ["missing", "torn record", "no table"])
def test_a_file_that_cannot_be_read_is_named_in_one_line(given, tmp_path, capsys, spoil):
    settings, (run,) = given
    file = {"missing": "split.png", "torn record": "one.json", "no table": "split.md"}[spoil]
    (tmp_path / file).unlink() if spoil == "missing" else (tmp_path / file).write_text("{")
    words = ["write-page", json.dumps(settings), "--template", str(TEMPLATE), "--runs", run]
    assert main([*words, "--out", str(tmp_path / "index.html")]) == 1
    said = capsys.readouterr().err.strip()
    assert file in said and len(said.splitlines()) == 1
    assert not (tmp_path / "index.html").exists()


@pytest.mark.parametrize(
    "changes, runs, words",
    [
        ({}, ["one.json", "one.json"], "--runs: found {}/one.json twice; allowed: each file once"),
        ({}, ["one.json", "./one.json"], "--runs: found {}/one.json twice; allowed"),
        ({"study": ""}, ["one.json"], "settings: study: found ''; allowed: a text that can be"),
        ({"config": " "}, ["one.json"], "settings: config: found ' '; allowed: a text"),
        ({"samplers": {"a": "\u200b"}}, ["one.json"], "samplers.a: found"),
        ({"figures": {"sample": "split.png"}}, ["one.json"],
         "page.html: found no caption sample.rst beside it; allowed: one of curves, "),
        ({"samplers": {"one_step": "1"}}, ["one.json"],
         "schedules.csv: found the sampler 'heun'; allowed: one_step, which have a label"),
        ({}, ["one.json", "stage.json"], "stage.json: 'stage' is 'trian'; allowed: prepare, "),
        ({}, ["one.json", "device.json"], "device.json: 'device' is ''; allowed: a text"),
    ],
)  # fmt: skip
def test_what_says_nothing_or_the_same_twice_is_one_line(
    given, tmp_path, monkeypatch, capsys, changes, runs, words
):
    record(tmp_path, "stage", stage="trian")
    record(tmp_path, "device", device="")
    monkeypatch.chdir(tmp_path)
    page = ["write-page", json.dumps(given[0] | changes), "--template", str(TEMPLATE)]
    assert main([*page, "--runs", *runs, "--out", "index.html"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words.format(tmp_path) in line and not Path("index.html").exists()


@pytest.mark.parametrize("kept", [8, 200, -1, -12])
def test_a_torn_figure_is_not_shown(given, tmp_path, kept):
    settings, runs = given
    path = tmp_path / "split.png"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"split\.png: found a png file without its end; allowed:"):
        write_page(**settings, template=TEMPLATE, runs=runs, out=tmp_path / "index.html")


@pytest.mark.parametrize(
    "kind, column",
    [("noise", "tunings"), ("ends", "map"), ("lengths", "ema_std"), ("solvers", "solver")],
)
def test_a_table_of_another_kind_is_named(given, tmp_path, kind, column):
    settings, runs = given
    settings["experiments"]["split"]["kind"] = kind
    with pytest.raises(ValueError, match=r"split\.csv: found no column '\w+'; allowed") as told:
        write_page(**settings, template=TEMPLATE, runs=runs, out=tmp_path / "index.html")
    assert f"'{column}'" in str(told.value) or kind == "noise"


@pytest.mark.parametrize("layout", ["none.html", "folder", "alone.html"])
def test_a_layout_that_is_none_is_named(given, tmp_path, layout):
    settings, runs = given
    (tmp_path / "folder").mkdir()
    (tmp_path / "alone.html").write_text("")
    with pytest.raises(ValueError, match=rf"/{layout}: found .*; allowed: "):
        write_page(**settings, template=tmp_path / layout, runs=runs, out=tmp_path / "index.html")


@pytest.mark.parametrize("content", [b"{% if %}", b"{{ nothing }}", b"\xff", None])
def test_a_layout_that_cannot_be_read_is_named_in_one_line(given, tmp_path, capsys, content):
    settings, (run,) = given
    layout = tmp_path / "layout.html"
    shutil.copytree(TEMPLATE.parent, tmp_path, dirs_exist_ok=True)
    if content is not None:
        layout.write_bytes(content)
    words = ["write-page", json.dumps(settings), "--template", str(layout), "--runs", run]
    assert main([*words, "--out", str(tmp_path / "index.html")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "layout.html" in line and "allowed: a template of jinja" in line


def test_a_figure_of_the_page_is_a_png(given, tmp_path, capsys):
    settings, (run,) = given
    settings["figures"]["samples"] = run
    words = ["write-page", json.dumps(settings), "--template", str(TEMPLATE), "--runs", run]
    assert main([*words, "--out", str(tmp_path / "index.html")]) == 1
    assert f"{run}: found no png file; allowed: a figure" in capsys.readouterr().err


# In a real browser.


def browse(folder, path, *words):
    """Open a page in a headless Chromium; returns its standard output and console lines."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *words, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


REPORT = """<script>
const wrong = [];
addEventListener("error", event => wrong.push(String(event.message || event.target)), true);
addEventListener("load", () => {
  const wide = image => image.getBoundingClientRect().width;
  const facts = [...document.images].map(image => {
    const plain = wide(image);
    image.parentElement.click();
    const large = [wide(image), image.getBoundingClientRect().height];
    image.parentElement.click();
    return {natural: image.naturalWidth, plain, large, after: wide(image)};
  });
  const links = [...document.querySelectorAll("a[href^='#']")].map(link => {
    link.click();
    return Math.round(document.querySelector(link.hash).getBoundingClientRect().top);
  });
  const seen = {wrong, facts, links, window: [innerWidth, innerHeight]};
  document.title = "told:" + JSON.stringify(seen) + ":told";
});
</script>"""


@needs_browser
def test_a_browser_shows_figures_enlarges_them_and_follows_links(written, tmp_path):
    told = tmp_path / "told.html"
    told.write_text(written.read_text().replace("<head>", "<head>" + REPORT))
    out, console = browse(tmp_path, told, "--dump-dom")
    seen = json.loads(html.unescape(re.search("<title>told:(.*):told</title>", out).group(1)))
    assert seen["wrong"] == console == [] and len(seen["facts"]) == 3
    for image in seen["facts"]:
        assert image["natural"] == 600 and image["plain"] == image["after"] > 300
        assert image["large"] == seen["window"]
    # each at the top of the window, unless the page ends before
    assert len(seen["links"]) == 4 and seen["links"][0] == 0
    assert all(0 <= top < seen["window"][1] for top in seen["links"])


NARROW = """<script>
addEventListener("load", () => {
  const left = element => element.getBoundingClientRect().left;
  const tables = [...document.querySelectorAll(".scroll")].map(box => {
    const measured = [...box.querySelectorAll("th")].find(th => th.textContent.includes("FD, "));
    const seen = measured ? measured.getBoundingClientRect().right : 0;  // before it is scrolled
    box.scrollLeft = 10000;
    const first = box.querySelector("tbody tr > :first-child");
    return {hidden: box.scrollWidth - box.clientWidth, moved: box.scrollLeft,
            first: left(first) - left(box), seen};
  });
  const page = [document.documentElement.scrollWidth, innerWidth];
  document.title = "told:" + JSON.stringify({page, tables}) + ":told";
});
</script>"""


@needs_browser
def test_in_a_narrow_window_tables_scroll_and_the_page_does_not(written, tmp_path):
    told = tmp_path / "told.html"
    told.write_text(written.read_text().replace("<head>", "<head>" + NARROW))
    out, console = browse(tmp_path, told, "--dump-dom", "--window-size=390,800")
    seen = json.loads(html.unescape(re.search("<title>told:(.*):told</title>", out).group(1)))
    page, tables = seen["page"], seen["tables"]
    assert console == [] and page[0] <= page[1] and len(tables) == 3
    assert all(table["seen"] <= page[1] for table in tables)  # one distance without scrolling
    assert all(table["moved"] == table["hidden"] and table["first"] == 0 for table in tables)


@needs_browser
def test_a_browser_draws_it_without_a_word_on_its_console(written, tmp_path):
    _, console = browse(tmp_path, written, f"--screenshot={tmp_path / 'shot.png'}")
    shades = np.asarray(Image.open(tmp_path / "shot.png").convert("L"))
    assert console == [] and shades.max() == 255 and shades.min() < 60
    assert 0.01 < (shades < 250).mean() < 0.9


@needs_browser
def test_a_mistake_on_a_page_would_be_seen(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<html><head></head><body><script>console.error('no'); none()</script>")
    assert len(browse(tmp_path, bad, "--dump-dom")[1]) == 2
