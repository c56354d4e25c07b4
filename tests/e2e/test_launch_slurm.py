"""The Slurm script, with stand-ins for Slurm's two programs: real ranks, this host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from magicbert import cli
from magicbert.report.reading import read_run

ROOT = Path(__file__).parents[2]
SRUN = """#!/usr/bin/env bash
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & tasks+=($!)
done
code=0
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit $code
"""
SCONTROL = """#!/usr/bin/env bash
case "$1" in show) echo localhost ;; *) echo "$@" >> "$0.log" ;; esac
"""
SMALL = {
    "space.num_layers": 2, "model.hidden_size": 16, "training.num_steps": 2,
    "training.rows_per_step": 4, "training.rows_per_micro_batch": 2, "training.log_every": 1,
    "training.num_eval_batches": 2,
}  # fmt: skip


def sbatch(folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in a folder, with ``program`` as what the name magicbert starts."""
    header = "#!/usr/bin/env bash\n"
    programs = {"srun": SRUN, "scontrol": SCONTROL, "magicbert": header + program}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
    }  # fmt: skip
    return subprocess.run(
        ["bash", str(ROOT / "launch" / "slurm.sbatch"), *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.distributed
def test_ranks_find_each_other_from_slurms_variables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ROOT / "configs" / "tiny"
    prepare = ["--corpus.max_documents", "200", "--tokenizer.vocab_size", "600"]
    cli.main(["prepare", "--config", str(tiny / "prepare.yaml"), "--run.name", "s", *prepare])
    options = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    words = ["pretrain", "--config", str(tiny / "pretrain.yaml"), "--run.name", "s", *options]
    done = sbatch(tmp_path, f'exec {sys.executable} -m magicbert "$@"\n', *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (record,) = read_run(tmp_path / "runs" / "s").finished("pretrain")
    assert record.series("train", "loss")[0] == [1, 2]
    assert "2 ranks" in done.stdout
    assert not (tmp_path / "scontrol.log").exists()


@pytest.mark.parametrize(("code", "is_requeued"), [(75, True), (2, False), (0, False)])
def test_only_a_stopped_job_goes_back_into_the_queue(code, is_requeued, tmp_path):
    done = sbatch(tmp_path, f"exit {code}\n", "pretrain")
    assert done.returncode == code
    assert (tmp_path / "scontrol.log").exists() == is_requeued
