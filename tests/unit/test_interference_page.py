"""The page on examined supernets (benchmarks/interference_page.py), from an invented run."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from page_scripts import run_script
from synthetic_run import write_trail

from magicbert.config.roots import AnalyzeConfig, PretrainConfig
from magicbert.config.sections import (
    AlignmentSection,
    SamplingSection,
    SpaceSection,
    TrainingSection,
)
from magicbert.records import read_record, write_record

ROOT = Path(__file__).parents[2]
SCRIPT = "benchmarks/interference_page.py"
CANDIDATES = ("mha2", "ffn", "conv3")
FIGURE = {"low": 0.0, "high": 1.0, "num_units": 4}


def write_supernet(
    run: Path,
    label: str,
    level: float,
    *,
    shared_layer: int = 1,
    num_layers: int = 4,
    candidates: tuple[str, ...] = CANDIDATES,
    **settings: Any,
) -> None:
    """Writes a training and its analysis; the cosine falls from ``level`` by 0.1 with m."""
    space = SpaceSection(preset="custom", num_layers=num_layers, candidates=candidates)
    config = PretrainConfig(space=space, **settings)
    valid = [{"kind": "valid", "step": step, "loss": 9.0 - step} for step in (1, 2)]
    write_trail(run / f"pretrain-{label}", config, valid)
    write_record(
        run / f"pretrain-{label}" / "result.json",
        "magicbert/training-result/1",
        {"finished": True},
    )
    inputs = [[1.0, 0.2, 0.6], [0.2, 1.0, 0.4], [0.6, 0.4, 1.0]]
    gradients = [[value * level for value in row] for row in inputs]
    pairs = {"same": None, "other": {"value": level, **FIGURE}, "all": {"value": level, **FIGURE}}
    curve = [{"num_layers": m, "value": level - 0.1 * m, **FIGURE} for m in range(1, num_layers)]
    row = {
        "operator": "mha2",
        "matrix": {"input": inputs, "output": inputs, "gradient": gradients},
        "pairs": {"gradient": pairs},
        "curve": {"gradient": curve},
    }
    place = run / f"analyze-interference-{label}"
    write_trail(place, AnalyzeConfig(), [])
    setting = {"shared_layer": shared_layer}
    payload = {"target": "interference", "setting": setting, "operators": [row]}
    write_record(place / "result.json", "magicbert/analysis/2", payload)


def build(run: Path, output: Path) -> CompletedProcess[str]:
    return run_script(SCRIPT, run, output)


def test_methods_sizes_and_likeness_come_from_the_records(tmp_path):
    run = tmp_path / "run"
    for seed in (0, 1):
        training = TrainingSection(num_steps=7, seed=seed)
        write_supernet(run, f"spos-{seed}", 0.6 + 0.1 * seed, training=training)
        write_supernet(
            run, f"t-{seed}", 0.8 + 0.1 * seed, training=training,
            sampling=SamplingSection(method="magic-t"),
        )  # fmt: skip
        write_supernet(
            run, f"mean-{seed}", 0.9, training=training,
            alignment=AlignmentSection(enabled=True, anchor="children"),
        )  # fmt: skip
        write_supernet(run, f"spos-{seed}-middle", 0.5, training=training, shared_layer=3)
    for depth in (2, 4):
        write_supernet(run, f"n{depth}", 0.7, num_layers=depth, training=TrainingSection(seed=0))
    assert build(run, tmp_path / "page").returncode == 0
    text = (tmp_path / "page.md").read_text()

    lines = {tuple(line.split(" | ")[:3]): line for line in text.splitlines() if " | " in line}
    # Means over m of 0.6 and 0.7 are 0.2 less; MAGIC-T is 0.2 above in both seeds.
    assert "| 0.45 [-0.19, 1.09] | – |" in lines["| mha2", "SPOS", "2"]
    assert "| +0.20 [+0.20, +0.20] |" in lines["| mha2", "MAGIC-T", "2"]
    assert ("| mha2", "aligned to children", "2") in lines
    assert lines["| 4", "3", "2.7"] == "| 4 | 3 | 2.7 | 7.000 | 0.60 | 0.40 | 0.50 |"
    assert lines["| 2", "3", "1.3"].endswith("| 0.60 | 0.60 | 0.60 |")
    # Gradients are half of the inputs' cosines, so the order of pairs is the same.
    assert lines["| SPOS", "6", "0.40"].endswith(
        "| 0.40 | 0.20 | +1.00 [+1.00, +1.00] | +1.00 [+1.00, +1.00] |"
    )
    rows = read_record(tmp_path / "page.json", "magicbert/interference-study/1")["rows"]
    assert len(rows) == 10
    assert json.dumps(rows)
    for name in ("methods", "likeness", "sizes"):
        assert f"page-{name}.svg" in text
        assert (tmp_path / f"page-{name}.svg").read_text().startswith("<svg xmlns=")


def test_a_run_without_examined_supernets_is_one_message(tmp_path):
    (tmp_path / "run").mkdir()
    done = build(tmp_path / "run", tmp_path / "page")
    assert done.returncode == 2
    assert "holds no supernet" in done.stderr
    assert not (tmp_path / "page.md").exists()
