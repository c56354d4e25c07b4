from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

from page_scripts import run_script
from synthetic_run import write_finetune, write_retrain, write_run

from magicbert.config.reading import to_yaml
from magicbert.config.roots import RetrainConfig
from magicbert.config.sections import DistillationSection
from magicbert.records import read_record, write_record

ROOT = Path(__file__).parents[2]
SCRIPT = "benchmarks/results_page.py"
SCHEMA = "magicbert/results/1"


def collect(run: Path, output: Path) -> CompletedProcess[str]:
    return run_script(SCRIPT, run, output)


def test_the_generated_part_is_renewed_and_the_rest_is_kept(tmp_path):
    run = write_run(tmp_path / "real", tasks=("cola", "rte"))
    page = tmp_path / "page.md"
    page.write_text(
        "# By hand\n\n<!-- generated: begin -->\nold\n<!-- generated: end -->\n\nEnd.\n"
    )
    assert collect(run, tmp_path / "page").returncode == 0
    text = page.read_text()
    assert text.startswith("# By hand\n")
    assert text.endswith("<!-- generated: end -->\n\nEnd.\n")
    assert "old" not in text

    record = read_record(tmp_path / "page.json", SCHEMA)
    stages = {row["stage"]: row["result"] for row in record["rows"]}
    analyses = {"analyze-interference", "analyze-sampler"}
    assert set(stages) == {"prepare", "pretrain", "search", "retrain", "finetune"} | analyses
    gap = stages["pretrain"]["unigram_entropy"] - stages["pretrain"]["valid_loss"]
    assert f"**{gap:.3f} nats below** it" in text
    for row in stages["finetune"]["summary"]:
        figures = (100 * row[name] for name in ("median", "minimum", "maximum"))
        assert "| {:.1f} ({:.1f} to {:.1f}) |".format(*figures) in text
    for name in ("losses", "glue"):
        assert f"page-{name}.svg" in text
        assert (tmp_path / f"page-{name}.svg").read_text().startswith("<svg xmlns=")

    assert collect(run, tmp_path / "page").returncode == 0
    assert page.read_text() == text


def test_discriminators_and_compressed_models_have_their_places(tmp_path):
    run = write_run(tmp_path / "real", tasks=("cola", "squad"))
    for label, changes in (("rtd", {"objective": "rtd"}), ("small", {})):
        write_retrain(run, label, 4.0, 12)
        file = run / f"retrain-{label}" / "result.json"
        schema = "magicbert/training-result/1"
        record = read_record(file, schema)
        write_record(file, schema, {**record, **changes, "valid_loss": 0.251})
    taught = RetrainConfig(distillation=DistillationSection(teacher="runs/x/retrain/model"))
    (run / "retrain-small" / "config.yaml").write_text(to_yaml(taught))
    write_finetune(run, "small", ("cola",), 0.5)
    best = {"architecture": "mha2w8-ffnw16", "parameters": 1234, "flops": 5678.0, "loss": 3.25}
    payload = {"results": [best], "scored": [best] * 7, "limits": {"max_parameters": 2000}}
    write_record(
        run / "compress-small" / "architectures.json", "magicbert/architectures/1", payload
    )

    assert collect(run, tmp_path / "page").returncode == 0
    text = (tmp_path / "page.md").read_text()
    assert "| 0.251 (RTD) |" in text
    assert "marked RTD are those of the discriminator" in text
    assert "## Compression small" in text
    assert "| 1 | `mha2w8-ffnw16` | 1,234 | 5,678 | 3.250 |" in text
    assert "7 models with the least sums of block losses run; limits: max_parameters 2,000." in text
    assert "## GLUE and SQuAD, dev sets" in text
    # One model was not asked about SQuAD; the mean is over GLUE alone.
    assert "| squad | accuracy | 80.0 (78.5 to 81.0) | - |" in text
    assert "| mean of 1 |  | 78.0 | 50.0 |" in text
    shown = {
        name: (tmp_path / f"page-{name}.svg").read_text() for name in ("losses", "discriminators")
    }
    # Neither a joint loss nor one with a teacher in it stands beside losses of masked tokens.
    assert "rtd" not in shown["losses"]
    assert "small, valid" in shown["losses"]
    assert "small, train" not in shown["losses"]
    assert "rtd, valid" in shown["discriminators"]
    assert "nats per token" in shown["discriminators"]


def test_finetunings_of_one_model_share_a_column(tmp_path):
    run = write_run(tmp_path / "real")
    for label, identity, task, level in (
        ("a", "one", "cola", 0.5), ("a-squad", "one", "squad", 0.3), ("b", "two", "cola", 0.7),
    ):  # fmt: skip
        write_finetune(run, label, (task,), level)
        file = run / f"finetune-{label}" / "results.json"
        record = read_record(file, "magicbert/finetune/1")
        write_record(file, "magicbert/finetune/1", {**record, "model_identity": identity})
    assert collect(run, tmp_path / "page").returncode == 0
    text = (tmp_path / "page.md").read_text()
    assert "| task | metric | model | a | b |" in text
    assert "| cola | accuracy | - | 50.0 (48.5 to 51.0) | 70.0 (68.5 to 71.0) |" in text
    assert "| squad | accuracy | - | 30.0 (28.5 to 31.0) | - |" in text


def write_forms(folder: Path, scores: dict[str, float]) -> None:
    """Writes the record of an ONNX export whose forms have these F1."""
    exact = {form: value / 2 for form, value in scores.items()}
    wall = {"median": 2.004, "low": 1.7, "high": 2.3}
    payload = {
        "score": {"metric": "f1", "beside": ["exact"], "rows": 1234, "source": "dev of squad"},
        "timing": {"rows": 1, "length": 128, "rounds": 5, "threads": 1},
        "machine": {"processor": "one of theirs", "processors": 2, "system": "Linux"},
        "versions": {"python": "3.11", "torch": "2.13"},
        "commit": "c0ffee" * 6 + "beef",
        "forms": {
            form: {
                "bytes": 1_870_074, "milliseconds": {"wall": wall}, "largest_difference": 2.26e-6,
                "score": value, "metrics": {"exact": exact[form], "f1": value, "no_answer_f1": 1.0},
            }
            for form, value in scores.items()
        },
    }  # fmt: skip
    write_record(folder / "onnx.json", "magicbert/onnx/1", payload)


def test_forms_of_exported_models_stand_side_by_side(tmp_path):
    run = tmp_path / "real"
    write_forms(run / "onnx-mlm", {"torch": 0.4564, "onnx": 0.4563, "int8": 0.4312})
    write_forms(run / "onnx-rtd", {"torch": 0.25})
    (run / "onnx-unfinished").mkdir()
    record = read_record(run / "onnx-rtd" / "onnx.json", "magicbert/onnx/1")
    none = {"metric": "", "beside": [], "rows": 0, "source": ""}
    record["forms"]["torch"] |= {"score": None, "metrics": {}}
    write_record(run / "onnx-rtd" / "onnx.json", "magicbert/onnx/1", record | {"score": none})

    assert collect(run, tmp_path / "page").returncode == 0
    text = (tmp_path / "page.md").read_text()
    rest = "| 1,234 | 2.3e-06 | 2.00 (1.70 to 2.30) |"
    assert f"| mlm | torch, fp32 | 1.87 | f1 45.6, exact 22.8 {rest}" in text
    assert f"| mlm | ONNX, int8 | 1.87 | f1 43.1, exact 21.6 {rest}" in text
    assert "| rtd | torch, fp32 | 1.87 | - | - | 2.3e-06 |" in text
    assert text.count("| rtd |") == 1
    assert text.count("1 x 128 tokens on 1 threads of one of theirs") == 1
    assert "mlm: dev of squad." in text
    # The record alone says on which commit it was made, and has no configuration.
    assert "| onnx-mlm | - |  | `c0ffeec0ffee` | - |" in text
    rows = {row["stage"]: row for row in read_record(tmp_path / "page.json", SCHEMA)["rows"]}
    assert rows["onnx-mlm"]["result"]["forms"]["int8"]["score"] == 0.4312
    assert rows["onnx-mlm"]["packages"] == {"torch": "2.13"}


def test_a_run_that_is_not_there_is_one_message(tmp_path):
    done = collect(tmp_path / "none", tmp_path / "page")
    assert done.returncode == 2
    assert "no such run" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "page.json").exists()
