"""Cells of text -> Markdown and LaTeX. `aligns` has an l or an r for each column: 'llrr'."""

import json
import math

from ect.runtime.text import csv_cell, one_line
from ect.runtime.text import markdown as as_markdown

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "[": "{[}", "]": "{]}", "*": "{*}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip


def digits(value):
    """A number to three significant digits, never in exponent notation: 0.0123, 12.3, 1230; 'nan'
    or 'inf' if it is not finite."""
    if not math.isfinite(value):
        return f"{value:g}"
    return _fixed(value, _decimals(value, 3))


def short(value):
    """A number to two significant digits, with at most one decimal: 0.0, 0.4, 3.2, 12, 120."""
    return _fixed(value, min(1, max(0, _decimals(value, 2)))) if math.isfinite(value) else "-"


def compact(mapping):
    """A mapping as JSON in one line."""
    return json.dumps(mapping, separators=(",", ":"), sort_keys=True)


def mean_and_sd(mean, sd, n):
    """'12.3 ± 0.4 (3)', '12.0, 12.6 (2)' or, without an sd, '12.3 (1)'. The sd has the mean's
    decimals, or as many more as its first digit needs."""
    if not (math.isfinite(sd) and math.isfinite(mean)):
        return f"{digits(mean)} ({n})"
    if n == 2:
        aside = sd / math.sqrt(2)
        return f"{digits(mean - aside)}, {digits(mean + aside)} (2)"
    decimals = max(_decimals(mean, 3), _decimals(sd, 1)) if sd > 0 else _decimals(mean, 3)
    return f"{digits(mean)} ± {_fixed(sd, decimals)} ({n})"


def markdown(headers, rows, aligns, caption):
    """A pipe table, padded so that it reads as plain text too, and its caption below."""
    cells = [[as_markdown(text) for text in row] for row in [headers, *rows]]
    widths = [max(4, *map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join(map(_pad, row, widths, aligns)) + " |" for row in cells]
    rule = [("-" * w if a == "l" else "-" * (w - 1) + ":") for w, a in zip(widths, aligns)]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join([*lines, "", caption, ""])


def latex(headers, group, rows, aligns, caption, label, last_apart):
    """A table for booktabs. `group` = (index, text) is a heading above the columns from that index
    on; with `last_apart` there is a rule above the last row."""
    first, text = group
    body = [_latex_row(row) for row in rows]
    if last_apart:
        body.insert(-1, r"\midrule")
    return "\n".join([
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{aligns}}}",
        r"\toprule",
        "& " * first + rf"\multicolumn{{{len(headers) - first}}}{{c}}{{{escape(text)}}} \\",
        rf"\cmidrule(lr){{{first + 1}-{len(headers)}}}",
        _latex_row(headers),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ])  # fmt: skip


def escape(text):
    """A text as LaTeX shows it. A bracket or star may stand behind the end of a row, where it would
    be its argument."""
    return "".join(LATEX.get(character, character) for character in one_line(text))


def csv(frame):
    """A frame as csv, six digits; no cell of text is one that a spreadsheet computes."""
    texts = {key: frame[key].map(csv_cell) for key in frame.select_dtypes(exclude="number")}
    return frame.assign(**texts).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _pad(text, width, align):
    return text.ljust(width) if align == "l" else text.rjust(width)


def _latex_row(row):
    return " & ".join(map(escape, row)) + r" \\"


def _decimals(value, significant):
    """How many decimals show that many significant digits; -1: rounded to tens, and so on."""
    exponent = int(f"{value:.{significant - 1}e}".partition("e")[2])
    return significant - 1 - exponent if value else 0


def _fixed(value, decimals):
    return f"{round(value, decimals):.{max(decimals, 0)}f}"


def duration(seconds):
    """'42 s', '3 min 20 s', '2 h 05 min'."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
