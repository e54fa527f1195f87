"""The record of a job: what it says of the code, and that it is written whatever git does."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ect.runtime import record

NOTHING = {"commit": None, "dirty": None}


def git(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *names, "-C", folder, *words], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with a few files where this one has them, all committed."""
    for name in ("ect/runtime/record.py", "ect/networks/k.c", "Snakefile", "config.yaml"):
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_text("x")
    for words in (["init"], ["add", "."], ["commit", "-m", "first"]):
        git(tmp_path / "clone", *words)
    monkeypatch.setattr(record, "PACKAGE", tmp_path / "clone" / "ect")
    return tmp_path / "clone"


def program(folder, text):
    """A `git` that is this shell script; returns the PATH on which it leads."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "git").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_the_commit_is_recorded(clone):
    assert len(record.source()["commit"]) == 40 and record.source()["dirty"] is False


@pytest.mark.parametrize(
    "name, counts",
    [
        ("mine.yaml", False),
        ("photos/1.png", False),
        ("workflow/studies/mine.yaml", False),
        ("config.yaml", False),
        ("ect/notes.txt", False),
        ("plugin.py", False),
        ("ect/runtime/record.py", True),
        ("ect/networks/k.c", True),
        ("ect/added.py", True),
        ("Snakefile", True),
        ("workflow/rules/mine.smk", True),
        ("ect/report/templates/page.html", True),
        ("workflow/Snakefile", True),
    ],
)
def test_only_the_code_counts_as_changed(clone, name, counts):
    (clone / name).parent.mkdir(parents=True, exist_ok=True)
    (clone / name).write_text("changed")
    assert record.source()["dirty"] is counts


def test_permissions_of_files_are_no_change(clone):
    (clone / "Snakefile").chmod(0o755)
    assert record.source()["dirty"] is False


def test_the_repository_of_the_caller_is_not_ours(clone, tmp_path, monkeypatch):
    """A git hook sets GIT_DIR for all that it starts."""
    git(tmp_path, "init", "other")
    known = record.source()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert record.source() == known and known["commit"]


def no_git(clone, monkeypatch):
    monkeypatch.setenv("PATH", str(clone / "nowhere"))


def no_permission(clone, monkeypatch):
    path = program(clone.parent / "bin", "")
    (clone.parent / "bin" / "git").write_bytes(b"\0\0")  # neither a program nor a script
    monkeypatch.setenv("PATH", path.partition(os.pathsep)[0])


def no_answer(clone, monkeypatch):
    """Its child holds the pipe of what git says, if it is one."""
    monkeypatch.setenv("PATH", program(clone.parent / "bin", "sleep 5 & sleep 5"))
    monkeypatch.setattr(record, "PATIENCE", 0.1)


def dubious(clone, monkeypatch):
    said = "fatal: detected dubious ownership in repository"
    monkeypatch.setenv("PATH", program(clone.parent / "bin", f"echo '{said}' >&2; exit 128"))


def no_text(clone, monkeypatch):
    monkeypatch.setenv("PATH", program(clone.parent / "bin", r"printf '\377\376'"))


def no_repository(clone, monkeypatch):
    shutil.rmtree(clone / ".git")


def no_commit(clone, monkeypatch):
    shutil.rmtree(clone / ".git")
    git(clone, "init")
    git(clone, "add", ".")


def another_repository(clone, monkeypatch):
    """An environment inside somebody's repository, as .venv/ is."""
    shutil.rmtree(clone / ".git")
    git(clone, "init")
    (clone / ".gitignore").write_text("ect\n")
    for words in (["add", "."], ["commit", "-m", "theirs"]):
        git(clone, *words)


CASES = [no_git, no_permission, no_answer, dubious, no_text, no_repository, no_commit]


@pytest.mark.parametrize("case", [*CASES, another_repository])
def test_a_record_is_written_where_git_says_nothing(clone, monkeypatch, case):
    case(clone, monkeypatch)
    assert record.source() == NOTHING
    written = record.job_record({}, [], 0.0, [Path(__file__)])
    assert written["code"] == NOTHING and written["outputs"]
