"""Files of runs that hold something else than runs write: one line that names the file."""

import json
import math
import shutil

import pytest

from ect.cli.main import main
from ect.runtime import crash, progress, record

RECORD = {
    "settings": {"recipe": {"batch": 2}, "seed": 0},
    "inputs": {},
    "outputs": {},
    "code": {"commit": "abc", "dirty": False},
    "stages": {"train": 1},
    "packages": {"torch": "2"},
    "device": "cpu",
    "seconds": 3.0,
    "images_per_second": 9.0,
}
METRICS = {"fd": 1.5, "images": 20, "features": "classifier", "cell": {"seed": 0}}
LOG = {"images": 1000, "loss": 0.5}


@pytest.fixture
def root(tmp_path):
    """A folder with a run, its log and its distances, made by hand."""
    (tmp_path / "run" / "one_step").mkdir(parents=True)
    run, measured = tmp_path / "run", tmp_path / "run" / "one_step" / "metrics.json"
    log, hidden = run / "metrics.jsonl", record.beside(measured)
    log.write_text(f"{json.dumps(LOG)}\n" * 2)
    measured.write_text(json.dumps(METRICS))
    for path, made in ((run / "run.json", log), (hidden, measured)):
        outputs = {made.name: record.digest(made)}
        path.write_text(json.dumps(RECORD | {"outputs": outputs}))
    return tmp_path


def verbs(root):
    run = str(root / "run")
    return (["status", str(root)], ["show", str(root)], ["diff", run, run], ["verify", str(root)])


def test_what_runs_write_is_read(root, capsys):
    for words in verbs(root):
        assert main(words) == 0, capsys.readouterr().err


NO_OBJECT = {
    "null": "null", "list": "[]", "number": "3", "text": '"x"', "true": "true", "torn": '{"a": ',
    "empty": "", "nested": "[" * 100_000, "binary": "\udcff\udcfe", "page": "<html>",
}  # fmt: skip
FILES = ("run.json", "one_step/metrics.json", "metrics.jsonl")


def spoiled(root, name, content):
    """The lines in which the verbs that read a file name it, by verb."""
    path = root / "run" / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    return path


def said_by(words, path, capsys):
    """The line in which a verb names a file; None where it succeeds."""
    code = main(words)
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == code and "Error" not in err
    named = [line for line in (out + err).splitlines() if str(path) in line]
    assert (code == 1 and named) or code == 0, (words, out, err)
    return named[0] if code else None


@pytest.mark.parametrize("content", NO_OBJECT.values(), ids=NO_OBJECT)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_object_is_named(root, capsys, name, content):
    """As the whole file and, of a log, as its last line."""
    if name.endswith(".jsonl"):
        content = f"{json.dumps(LOG)}\n{content or ' '}\n"
    path = spoiled(root, name, content)
    readers = {
        "run.json": {"status", "show", "diff", "verify"},
        "one_step/metrics.json": {"show", "diff", "verify"},
        "metrics.jsonl": {"status", "diff", "verify"},
    }[name]
    for words in verbs(root):
        line = said_by(words, path, capsys)
        assert (line is not None) == (words[0] in readers)
        if line and name.endswith(".jsonl") and words[0] != "verify":
            assert f"{path}, line 2: " in line or "not JSON" in line


WRONG = [
    ("run.json", {"settings": None}, "'settings' is null; allowed: an object"),
    ("run.json", {"settings": []}, "'settings' is []; allowed: an object"),
    ("run.json", {"settings": {"features": 3}}, "settings: 'features' is 3"),
    ("run.json", {"settings": {"sampling": None}}, "settings: 'sampling' is null"),
    ("run.json", {"settings": {"plugins": "p.py"}}, "settings: 'plugins' is \"p.py\""),
    ("run.json", {"settings": {"features": {"plugins": 1}}}, "features: 'plugins' is 1"),
    ("run.json", {"inputs": None}, "'inputs' is null"),
    ("run.json", {"outputs": ["a"]}, "'outputs' is [\"a\"]"),
    ("run.json", {"stages": 3}, "'stages' is 3"),
    ("run.json", {"packages": None}, "'packages' is null"),
    ("run.json", {"code": "abc"}, "'code' is \"abc\""),
    ("run.json", {"images_per_second": "9"}, "'images_per_second' is \"9\"; allowed: a number"),
    ("run.json", {"seconds": True}, "'seconds' is true; allowed: a number"),
    ("run.json", {"seconds": math.nan}, "'seconds' is nan; allowed: a number >= 0"),
    (
        "run.json",
        {"settings": {"a": {"c": math.nan}}},
        "settings: a.c is nan; allowed",
    ),
    ("run.json", {"seconds": -1}, "'seconds' is -1; allowed: a number >= 0"),
    ("run.json", {"images_per_second": math.inf}, "'images_per_second' is inf; allowed: a number"),
    ("run.json", {"device": None}, "'device' is null; allowed: a text"),
    ("run.json", {"device": " "}, "'device' is ' '; allowed: a text that can be seen"),
    ("run.json", {"stage": "trian"}, "'stage' is 'trian'; allowed: prepare, "),
    ("one_step/metrics.json", {"cell": None}, "'cell' is null; allowed: an object"),
    ("one_step/metrics.json", {"cell": [1]}, "'cell' is [1]"),
    ("one_step/metrics.json", {"images": "20"}, "'images' is \"20\"; allowed: a whole number"),
    ("metrics.jsonl", {"loss": "\x1b[2J"}, r"'loss' is " + '"\\u001b[2J"'),
    ("metrics.jsonl", {"loss": [0.5]}, "'loss' is [0.5]"),
]


@pytest.mark.parametrize("name, change, words", WRONG)
def test_a_value_of_another_type_is_named(root, capsys, name, change, words):
    whole = {"run.json": RECORD, "one_step/metrics.json": METRICS, "metrics.jsonl": LOG}[name]
    path = spoiled(root, name, json.dumps(whole | change))
    log = name == "metrics.jsonl"  # whose bytes alone matter to `verify`
    told = [verb for verb in verbs(root) if not (log and verb[0] == "verify")]
    lines = [said_by(verb, path, capsys) for verb in told]
    assert any(lines) and all(words in line for line in lines if line), lines


@pytest.mark.parametrize(
    "change, verb",
    [
        ({"outputs": {"metrics.jsonl": 3}}, "verify"),
        ({"inputs": {"x": None}}, "verify"),
        *(({"inputs": {name: "0"}}, "verify") for name in ("a\0b", "\ud800", "x" * 5000)),
        *(({"outputs": {name: "0"}}, "verify") for name in ("a\0b", "\ud800", "x" * 5000)),
        ({"stage": ["train"]}, "verify"),
        ({"stages": {"train": []}}, "verify"),
        ({"settings": 3}, "verify"),
        ({"settings": 3}, "status"),
        ({"device": 3}, "status"),
    ],
)
def test_one_bad_record_hides_no_other(root, capsys, change, verb):
    """The other is wrong too, or done."""
    for name in ("before", "later"):
        shutil.copytree(root / "run", root / name)
        (root / name / "metrics.jsonl").write_text('{"images": 1, "loss": 2.5}\n')
    path = spoiled(root, "run.json", json.dumps(RECORD | change))
    assert main([verb, str(root)]) == 1
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and str(path) in out + err
    for name in ("before", "later"):
        told = [line for line in out.splitlines() if name in line]
        assert told and ("2.5" in told[0] or verb == "verify")


ESCAPE = "\x1b[2Jx"


def test_no_control_character_of_a_file_is_printed(root, capsys):
    """In a device, keys, values, stages and names of files."""
    other = root / f"other{ESCAPE}"
    shutil.copytree(root / "run", other)
    odd = RECORD | {"device": ESCAPE, "inputs": {ESCAPE: "0"}, "packages": {ESCAPE: "1"}}
    odd |= {"settings": RECORD["settings"] | {ESCAPE: ESCAPE}, "code": {ESCAPE: ESCAPE}}
    (other / "run.json").write_text(json.dumps(odd))
    for form in ("table", "csv", "md", "json"):
        main(["show", str(root), "--format", form])
    for words in (["status", str(root)], ["verify", str(root)], ["verify", ESCAPE],
                  ["diff", str(root / "run"), str(other)], ["show", str(root), "--sort", ESCAPE],
                  ["show", str(root), "--filter", f"{ESCAPE}=1"]):  # fmt: skip
        main(words)
    (other / "run.json").write_text("{")
    for verb in ("status", "verify", "show"):
        main([verb, str(root)])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and out.count(r"\x1b[2Jx") > 10 and r"\x1b" in err


@pytest.mark.parametrize("verb", ["status", "plan", "show", "diff", "verify", "tensorboard"])
def test_a_path_that_no_file_has_is_named(tmp_path, capsys, verb):
    assert main([verb, "a\0b", *["c"] * (verb == "diff")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ect {verb}: a\\x00b")


def test_a_log_without_a_loss_is_named(root, capsys):
    path = spoiled(root, "metrics.jsonl", '{"images": 3}\n')
    assert f"{path}, line 1: found no key 'loss'" in said_by(["status", str(root)], path, capsys)


MOMENT = {
    "first": 0, "total": 9, "images": 3, "attempt": 1, "pid": 2**22, "host": "h", "device": "cpu",
    "time": 0.0, "rate": None, "loss": None,
}  # fmt: skip
ODD = [
    *(NO_OBJECT[name] for name in ("null", "list", "number", "torn", "nested", "binary")),
    *(json.dumps({k: v for k, v in MOMENT.items() if k != key}) for key in MOMENT),
    *(
        json.dumps(MOMENT | change)
        for change in (
            {"total": None}, {"pid": 10**30}, {"pid": -1}, {"first": 9}, {"images": 99},
            {"rate": "fast"}, {"loss": {}}, {"host": 3}, {"time": None},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("content", ODD)
def test_progress_that_is_none_is_not_shown(root, capsys, content):
    spoiled(root, progress.NAME, content)
    assert progress.read(root / "run") is None
    assert main(["status", str(root)]) == 0 and "1 done" in capsys.readouterr().out
    spoiled(root, progress.NAME, json.dumps(MOMENT))
    assert progress.read(root / "run") == MOMENT


@pytest.mark.parametrize("content", ["null", "[]", "3", "{", "{}", "[" * 100_000])
def test_a_note_of_a_crash_that_is_none_is_passed_over(tmp_path, content):
    out = tmp_path / "k1"
    crash.note_of(out).write_text(content)
    with crash.noted(out, attempt=2):
        pass
    crash.note_of(out).write_text(content)
    crash.refuse_to_repeat(crash.note_of(out), {"settings": 1}, 0)
    assert not crash.note_of(out).exists()
