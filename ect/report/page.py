"""One page to open in a browser: questions, figures, tables, sentences, and where they come from.

Figures and tables are embedded in the file, so that it can be moved and mailed. Its layout is a
jinja2 template; the captions are those of Snakemake's own report, which lie beside it.
"""

import base64
import math
import re
from pathlib import Path

import jinja2

from ect.report import gather, sentences
from ect.report import planned as planned_for
from ect.report.gallery import gallery
from ect.report.markup import duration
from ect.report.tables import write
from ect.runtime.checkpoint import read_json
from ect.runtime.text import plain, shown

# The keys of a run.json that the page names.
LEADING = ("Schedule", "Sampler")  # headers of columns without which rows cannot be told apart
PNG_END = b"IEND\xaeB\x60\x82"  # the last chunk and its checksum
WIDE = 4  # columns of a table; in one that has more the distances come first
RECORD = {
    "code": dict, "packages": dict, "device": str, "seconds": (int, float),
    "test_accuracy": (int, float),
}  # fmt: skip


def write_page(
    study, config, samplers, experiments, figures, tables, template, runs, out, planned=()
):
    """Write `out`, an html file.

    `config` is the hash of the study's config, `samplers` are {name: label}; `experiments` are
    {name: {"question", "kind", "table": csv, "figure": png}}, `figures` {name: png} and `tables`
    {name: csv} of what belongs to no experiment. A csv has its md beside it. `runs` are run.json
    files; samples beside them are in the gallery. `planned` are facts of what experiments compare
    (ect/study/noise.py). Raises `ValueError` or `OSError` that name a file that cannot be read.
    """
    _require_layout(template, ["experiment"] * bool(experiments) + [*figures, *tables])
    folder, name = Path(template).parent, Path(template).name
    layout = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
    )
    told = {key: power_of(key, planned) for key in experiments}
    parts = [_experiment(layout, k, block, samplers, told[k]) for k, block in experiments.items()]
    for key in dict.fromkeys([*figures, *tables]):
        found = {"figure": picture(figures[key])} if key in figures else {}
        found |= {"table": table(tables[key])} if key in tables else {}
        parts.append(_alone(layout, key, found))
    facts = [("study", study), ("sha256 of the config", config), *provenance(runs)]
    page = {"study": study, "parts": parts, "facts": facts, "criterion": sentences.CRITERION}
    page["gallery"] = gallery(runs, out)
    write(out, _laid_out(layout, name, page) + "\n")


def _require_layout(template, names):
    """Raise `ValueError` unless the layout is a file with these captions beside it."""
    _bytes(template, "a template of jinja")
    known = sorted(path.stem for path in Path(template).parent.glob("*.rst"))
    if lost := [name for name in names if name not in known]:
        found = f"found no caption {shown(lost[0], 60)}.rst beside it"
        raise ValueError(f"{template}: {found}; allowed: one of {', '.join(known) or 'none'}")


def _laid_out(layout, name, page):
    """The page as text; raises `ValueError` that names a layout which cannot be read."""
    try:
        return layout.get_template(name).render(page)
    except (jinja2.TemplateError, UnicodeDecodeError) as error:
        file = getattr(error, "filename", None) or name
        line = getattr(error, "lineno", None)
        at = f", line {line}" if line else ""
        raise ValueError(
            f"{file}{at}: found {shown(error)}; allowed: a template of jinja"
        ) from None


def power_of(name, facts):
    """The sentences on how many replicates an experiment needs, with their method at the end; one
    for all samplers where no spread is known."""
    own = [fact for fact in facts if fact["experiment"] == name]
    if own and not any(fact["spread"] for fact in own):
        own = own[:1]
        return [f"{text[0].upper()}{text[1:]}" for text in map(planned_for.sentence, own)]
    told = [f"{fact['label']}: {planned_for.sentence(fact)}" for fact in own]
    return [*told, planned_for.METHOD] if told else told


def _experiment(layout, name, block, samplers, more):
    rows, floor = sentences.read(block["table"])
    sentences.require_columns(block["table"], rows, block["kind"])
    if lost := [row["sampler"] for row in rows if row["sampler"] not in samplers]:
        found = f"{block['table']}: found the sampler '{shown(lost[0], 60)}'"
        raise ValueError(f"{found}; allowed: {', '.join(samplers)}, which have a label")
    measure = gather.metric_name(rows[0]["features"])
    said = sentences.answer(block["kind"], rows, samplers) + sentences.floor_of(floor) + more
    return {
        "name": name,
        "question": block["question"],
        "measure": measure,
        "said": said,
        "figure": picture(block["figure"]),
        "caption": caption(layout, "experiment", block["kind"], floor is not None),
        "table": distances_first(table(block["table"]), measure.split()[0], floor is not None),
    }


def _alone(layout, name, shown):
    """A figure or table of no experiment: the first sentence of its caption is its question."""
    question, mark, rest = caption(layout, name).partition("?")
    part = {"name": name, "question": question + mark, "said": [], "caption": rest}
    return part | {"figure": None, "table": None} | shown


def caption(layout, name, kind=None, floor=False):
    """A caption of Snakemake's report as one line of text; `floor`: of real test images too."""
    facts = {"snakemake": {"params": {"kind": kind}, "input": {"floor": floor}}}
    return " ".join(_laid_out(layout, f"{name}.rst", facts).split())


def picture(path):
    """A png file as a data URI; raises `ValueError` for another file."""
    content = _bytes(path, "a png file")
    begins = content.startswith(b"\x89PNG\r\n\x1a\n")
    if not begins or not content.endswith(PNG_END):
        found = "a png file without its end" if begins else "no png file"
        raise ValueError(f"{path}: found {found}; allowed: a figure that `draw` wrote")
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _bytes(path, allowed):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: found {error.strerror}; allowed: {allowed}") from None


def table(path):
    """A table from its csv and the md beside it: headers, rows and columns of text as the md lays
    them out, aligns ('l' or 'r'), the caption, and the csv as a data URI."""
    beside = Path(path).with_suffix(".md")
    text = _bytes(beside, "the md beside a csv").decode(errors="replace")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    if len(lines) < 3:
        raise ValueError(f"{Path(path).with_suffix('.md')}: found no table; allowed: one with rows")
    headers, rule, *rows = map(_cells, lines)
    return {
        "headers": headers,
        "aligns": ["r" if cell.endswith(":") else "l" for cell in rule],
        "rows": rows,
        "caption": text.rpartition("|")[2].strip(),
        "csv": "data:text/csv;base64," + base64.b64encode(Path(path).read_bytes()).decode(),
    }


def distances_first(table, short, floor):
    """A wide table for a narrow window: after its first column, the schedule and the sampler those
    of distances, whose headers begin with `short` (FD), then the others; a column with one value in
    all rows is said in the caption. With `floor` the last row, of real images, has no values."""
    headers, models = table["headers"], table["rows"][: -1 if floor else None]
    if len(headers) <= WIDE:
        return table
    measured = [i for i, header in enumerate(headers) if header.startswith(f"{short}, ")]
    others = [i for i in range(1, len(headers)) if i not in measured]
    alike = [i for i in others if len(models) > 1 and len({row[i] for row in models}) == 1]
    lead = [i for i in others if i not in alike and headers[i] in LEADING]
    order = [0, *lead, *measured, *(i for i in others if i not in (*alike, *lead))]
    said = ", ".join(f"{headers[i]} {models[0][i]}" for i in alike if models[0][i])
    return table | {
        "headers": [headers[i] for i in order],
        "aligns": [table["aligns"][i] for i in order],
        "rows": [[row[i] for i in order] for row in table["rows"]],
        "caption": f"{table['caption']} In all rows: {said}." if said else table["caption"],
    }


def _cells(line):
    """The cells of a line of a pipe table, as plain text; a pipe within a cell is written \\|."""
    cells = re.findall(r"((?:\\.|[^|\\])*)\|", line.strip().removeprefix("|"))
    return [plain(cell.strip()) for cell in cells]


def provenance(runs):
    """Pairs (what, text) from run.json files: code, packages, devices, threads, total time."""
    records = [_record(path) for path in runs]
    codes = [record.get("code", {}) for record in records]
    packages = {}
    for record in records:
        for name, version in record.get("packages", {}).items():
            packages.setdefault(name, []).append(str(version))
    return [
        ("code", _counted(map(_commit, codes))),
        ("packages", ", ".join(f"{k} {_one_or_all(packages[k])}" for k in sorted(packages))),
        ("devices", _counted(record.get("device", "not recorded") for record in records)),
        ("threads of a job", _one_or_all([str(record.get("threads")) for record in records])),
        *_classifier(records),
        ("jobs with a record", str(len(records))),
        ("time of these jobs, summed", duration(sum(r.get("seconds", 0) for r in records))),
    ]


def _record(path):
    """What a run.json holds; raises `ValueError` that names it where that is none."""
    found = read_json(path, known=RECORD)
    if "cell" in found or not set(RECORD) & set(found):
        keys = shown(", ".join(found), 80) or "nothing"
        raise ValueError(f"{path}: found {keys}; allowed: the record of a job, a run.json")
    if not 0 <= found.get("seconds", 0) < math.inf:
        raise ValueError(f"{path}: 'seconds' is {shown(found['seconds'], 60)}; allowed: >= 0")
    if not 0 <= found.get("test_accuracy", 0) <= 1:
        accuracy = shown(found["test_accuracy"], 60)
        raise ValueError(f"{path}: 'test_accuracy' is {accuracy}; allowed: from 0 to 1")
    return found


def _classifier(records):
    """A warning where the classifier whose features are measured is one of chance."""
    for record in records:
        if record.get("at_chance") is True:
            right = f"{record.get('test_accuracy', 0):.1%} of test images"
            warning = "that of chance, so distances in its features say little"
            yield "the classifier is right about", f"{right}: {warning}"


def _commit(code):
    """The commit in words, or that none was recorded."""
    if not code.get("commit"):
        return "no commit recorded"
    changed = ", with changes that were not committed" if code.get("dirty") else ""
    return f"commit {code['commit']}{changed}"


def _counted(texts):
    """'a', or 'a (3 jobs); b (1 job)' where they differ."""
    texts = list(texts)
    counts = {text: texts.count(text) for text in sorted(set(texts))}
    if len(counts) == 1:
        return texts[0]
    return "; ".join(f"{text} ({n} job{'s' * (n > 1)})" for text, n in counts.items())


def _one_or_all(texts):
    return " and ".join(sorted(set(texts)))
