"""Labels are text, whatever is in them: in tables, on the page, in figures, on the model card."""

import csv
import html
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from ect.models.export import card
from ect.report import markup, page, style, tables
from ect.report.figures import plot
from ect.runs import compare
from ect.runtime.text import code_span, csv_cell, markdown, one_line, plain
from tests.helpers.reports import Inputs

LABELS = [
    "two\nlines", "a\r\nb", "a | b", "<script>alert(1)</script>", "[x](javascript:alert(1))",
    "![x](http://x/y.png)", "$x_1^2$", r"$\nosuch{$", "_hidden_", "__init__", "*bold* **b** `code`",
    "~~gone~~", r"back\slash \| \_", "&lt;b&gt; & co", "=1+1", "+1", "-2+3", "@SUM(A1)",
    '=HYPERLINK("http://x")', "\tTab", "\x1b[31mred", "‮right to left", "{braces}", "50 %", "#1",
    "<!-- -->", "|", "\\", "a\u2028b", '"quoted", text', "</script><img src=x onerror=alert(1)>",
]  # fmt: skip
each = pytest.mark.parametrize("label", LABELS, ids=range(len(LABELS)))


def metrics(folder, label):
    inputs = Inputs(folder)
    paths = [inputs.cell("one_step", 2.0), inputs.cell("one_step", 3.0, schedule="s", tune=1)]
    for path in paths:
        found = json.loads(Path(path).read_text())
        found["cell"]["label"] = label
        Path(path).write_text(json.dumps(found))
    return paths


@each
def test_in_a_table_and_on_the_page(tmp_path, label):
    out = tmp_path / "t"
    tables.tabulate("methods", metrics(tmp_path, label), out)
    lines = out.with_suffix(".md").read_text().splitlines()
    assert [bool(line.startswith("|")) for line in lines] == [True] * 4 + [False] * 2
    found = page.table(f"{out}.csv")
    assert found["headers"][-1] == one_line(f"FD, {label}") and len(found["rows"]) == 2
    assert {len(row) for row in found["rows"]} == {len(found["headers"])}
    tex = out.with_suffix(".tex").read_text()
    body = tex[tex.index("\\toprule") : tex.index("\\bottomrule")]
    assert not re.search(r"\\\\\n?\s*[\[*]", body) and not re.search(r"(?<!\\)[$_#]", strip(body))
    assert tex.count("{") - tex.count("\\{") == tex.count("}") - tex.count("\\}")


def strip(tex):
    return tex.replace(r"$\pm$", "")


@pytest.mark.parametrize("figure", ["methods", "schedules", "solvers", "split"])
@pytest.mark.parametrize("name", [r"$\nosuch{$", r"$\x$"])
def test_a_name_begins_no_formula_in_a_figure(tmp_path, figure, name):
    """Names are those of a metrics.json, whoever wrote it."""
    paths = Inputs(tmp_path).split() if figure == "split" else Inputs(tmp_path).study()
    for path in paths:
        text = Path(path).read_text().replace('"ve"', json.dumps(name))
        Path(path).write_text(text.replace("con_stant", name.replace("\\", "\\\\")))
    kinds = {"solvers": {"heun": "heun", "one_step": "multistep", "two_step": "multistep"}}
    told = kinds if figure == "solvers" else {}
    plot(figure, {"metrics": paths, "width_in": 6, **told}, tmp_path / "f")
    assert (tmp_path / "f.png").exists()


@each
def test_in_markdown(label):
    """A renderer sees no markup: what remains unescaped is no beginning of any."""
    text = markdown(label)
    assert plain(text) == one_line(label) and text.isprintable()
    bare = re.sub(r"\\[\\`*{}\[\]<>|$~&_]", "", text)
    assert not re.search(r"[`*\[\]<>|$~]|(?<!\w)_|_(?!\w)|&#?\w+;", bare)
    assert "`" not in code_span(label)[1:-1] and code_span(label).isprintable()


@pytest.mark.parametrize("name", ["con_stant", "ect_50%", "DPM-Solver++(2M)", "2 steps, t = 0.5"])
def test_usual_names_are_as_they_were(name):
    assert markdown(name) == csv_cell(name) == one_line(name) == name


def test_published_tables_are_as_they_were():
    for path in Path("results/published").glob("*/tables/*.md"):
        for line in path.read_text().splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            assert [markdown(plain(cell)) for cell in cells] == [" ".join(c.split()) for c in cells]


@each
def test_in_a_csv(label):
    frame = pd.DataFrame({"label": [label, None], "n": [1, -2], "x": [-0.5, float("nan")]})
    for text in (markup.csv(frame), compare.written(frame, "csv")):
        rows = list(csv.reader(io.StringIO(text)))
        assert len(rows) == 3 and {len(row) for row in rows} == {3}
        computed = rows[1][0].lstrip().startswith(("=", "+", "-", "@"))
        assert not computed or float(rows[1][0]) == float(label)
        assert rows[1][1:] == ["1", "-0.5"] and rows[2] == ["", "-2", ""]
    assert csv_cell("-0.5") == "-0.5" and csv_cell(-1) == -1


@each
def test_in_the_table_of_runs(label):
    frame = pd.DataFrame({"run": ["a", "b"], "label": [label, "x"]})
    assert len(compare.written(frame, "table").splitlines()) == 3
    assert compare.written(frame, "table").replace("\n", "").isprintable()
    assert len(compare.written(frame, "md").splitlines()) == 6


@pytest.mark.parametrize("label", [LABELS[i] for i in (0, 6, 7, 8, 20)])
def test_in_figures(tmp_path, label):
    inputs = Inputs(tmp_path)
    plot(
        "samples", {"rows": [[label, inputs.images()]], "columns": 2, "width_in": 3}, tmp_path / "f"
    )
    plot("schedules", {"metrics": metrics(tmp_path, label), "width_in": 4}, tmp_path / "f")
    assert style.label(label)[:1] != "_" and "$" not in style.label(label).replace(r"\$", "")


def test_on_the_page_html_is_escaped(tmp_path):
    label = LABELS[3]
    tables.tabulate("methods", metrics(tmp_path, label), tmp_path / "t")
    (tmp_path / "f.png").write_bytes(b"\x89PNG\r\n\x1a\nIEND\xaeB`\x82")
    block = {"question": label, "kind": "methods", "table": f"{tmp_path}/t.csv"}
    run = Inputs(tmp_path).file('{"seconds": 1.0}')
    page.write_page(
        "x", "0", {"one_step": label}, {"methods": block | {"figure": f"{tmp_path}/f.png"}}, {}, {},
        "ect/report/templates/page.html", [run], tmp_path / "index.html",
    )  # fmt: skip
    text = (tmp_path / "index.html").read_text()
    assert "<script>" not in text and text.count(html.escape(label)) >= 4


@each
def test_in_the_model_card(label):
    about = {
        "shape": [1, 8, 8],
        "process": label,
        "parameterization": label,
        "shift": 0,
        "scale": 1,
    }
    about["network"] = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
    settings = {"last_kimg": 1, "seed": 0, "schedule": {"map": label}, "recipe": {}}
    run = {"settings": settings, "code": {"commit": label, "dirty": None}, "device": label}
    run |= {"inputs": {}, "packages": {"torch": label}}
    lines = [*card.model_lines(about, run), *card.training_lines(run)]
    for name in ("Process", "Parameterization", "Schedule", "Code", "Device"):
        (line,) = [line for line in lines if line.startswith(f"- {name}:")]
        said = markdown(label) if name in ("Code", "Device") else code_span(label)
        assert said in line
