"""The Python of docs/search.md runs as it is printed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from magicbert.records import read_record

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_scorer_of_the_page_is_searched_from_python_and_from_the_command_line(tmp_path):
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    files = dict(BLOCK.findall(page))
    assert list(files) == ["my_scorer.py", "search_it.py"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = run("search_it.py").split()[0]
    run(
        "-m", "magicbert", "search", "--search.scorer", "callable", "--search.callable",
        "my_scorer:score", "--search.num_rounds", "2", "--search.samples_per_round", "50",
        "--search.num_finalists", "20", "--search.max_parameters", "900000",
    )  # fmt: skip
    file = tmp_path / "runs" / "run" / "search" / "architectures.json"
    assert read_record(file, "magicbert/architectures/1")["results"][0]["architecture"] == found
