"""What README prints is what the published runs wrote."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "results" / "published"
TABLES = (
    "digits/tables/methods", "digits/tables/schedules", "digits/tables/split",
    "baselines/tables/baselines", "baselines/tables/clock", "baselines/tables/steps",
)  # fmt: skip


def test_tables_are_the_published_ones():
    readme = (ROOT / "README.md").read_text()
    for name in TABLES:
        text = (PUBLISHED / f"{name}.md").read_text()
        table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
        assert table.count("\n") > 3 and table in readme, name


def test_figures_and_files_named_in_readme_exist():
    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert targets and all((ROOT / target).exists() for target in targets)
