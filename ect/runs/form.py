"""What is wrong with a result's form: found without a record, but no proof that its bytes are those
that were made."""

import csv
import io
import zipfile

from ect.runtime.text import parsed

# The bytes with which files of a kind begin and end.
ENDS = {
    ".png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    ".pdf": (b"%PDF", b"%%EOF\n"),
    ".html": (b"<!doctype html>", b"</html>\n"),
    ".tex": (b"\\begin{table}", b"\\end{table}\n"),
    ".md": (b"|", b"\n"),
}


def fault(path):
    """What is wrong with a file, by its ending, or None: empty, zeroed, torn, not of its kind."""
    try:
        return _FAULTS.get(path.suffix, _fault_of_ends)(path)
    except (OSError, ValueError, zipfile.BadZipFile, csv.Error) as error:
        return f"cannot be read ({error})"


def _fault_of_ends(path):
    content, (first, last) = path.read_bytes(), ENDS[path.suffix]
    whole = content.startswith(first) and content.endswith(last)
    return None if whole else f"no whole {path.suffix.removeprefix('.')} file"


def _fault_of_csv(path):
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    if len(rows) < 2 or "\0" in "".join(rows[0]):
        return "no table with rows"
    return None if {len(row) for row in rows} == {len(rows[0])} else "rows of different lengths"


def _fault_of_json(path):
    text = path.read_text(encoding="utf-8")
    for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
        parsed(part)
    return None if text else "empty"


def _fault_of_tensors(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return None
    except SafetensorError as error:
        return f"cannot be read ({error})"


def _fault_of_zip(path):
    with zipfile.ZipFile(path) as file:
        return f"torn in {name}" if (name := file.testzip()) else None


_FAULTS = {
    ".csv": _fault_of_csv,
    ".json": _fault_of_json,
    ".jsonl": _fault_of_json,
    ".npz": _fault_of_zip,
    ".safetensors": _fault_of_tensors,
}
