"""G5: tokens and passwords stay where they were given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from exported_run import write_run
from matrix import Finding, mutant, row

ROOT = Path(__file__).parents[3]
TOKEN, KEY, PASSWORD = "hf_QwErTy0123456789", "wandb0123456789abcdef", "hunter2-s3cret"
SECRETS = (TOKEN, KEY, PASSWORD)
ADDRESS = f"https://someone:{PASSWORD}@host.example/data"
# A stage that fails as other packages do: with the address and the token in the message.
CRASH = f"""
import os, sys
from magicbert import cli, redaction
from magicbert.stages import report
import logging
if len(sys.argv) > 1:
    redaction.USER_INFO = redaction.re.compile("(?!)")
    redaction.secret_values = lambda: iter(())
def run(config):
    logging.getLogger("urllib3").warning("retry {ADDRESS} %s", os.environ["HF_TOKEN"])
    logging.getLogger("magicbert").info("token %s", os.environ["WANDB_API_KEY"])
    raise ConnectionError("401 for {ADDRESS} with " + os.environ["HF_TOKEN"])
report.run = run
cli.main(["report"])
"""


def environment() -> dict[str, str]:
    return {**os.environ, "HF_TOKEN": TOKEN, "WANDB_API_KEY": KEY, "HTTPS_PROXY": ADDRESS}


def start(folder: Path, *words: str) -> tuple[int, str]:
    """Runs Python in a folder with the secrets in its environment; returns code and output."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder, env=environment() | {"PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def refused(folder: Path) -> list[str]:
    """Returns what goes wrong with secrets in the configuration and on the command line."""
    (folder / "with.yaml").write_text(f"corpus: {{sources: ['{ADDRESS}']}}\n")
    (folder / "typed.yaml").write_text(f"corpus: {{max_documents: {TOKEN}}}\n")
    lines = [
        ("prepare", "--config", "with.yaml"),
        ("prepare", "--config", "typed.yaml"),
        ("prepare", "--run.name", f"my-{TOKEN}"),
        ("finetune", "--model", ADDRESS),
        ("search", f"--{KEY}", "1"),
        ("prepare", "--config", f"{KEY}.yaml"),
    ]
    wrong = []
    for words in lines:
        code, output = start(folder, "-m", "magicbert", *words)
        if code != 2 or any(secret in output for secret in SECRETS):
            wrong.append(f"{' '.join(words[:2])}: exit {code}, {output[-200:]}")
    return wrong


def leaked(folder: Path) -> list[str]:
    """Returns the files below a folder that hold a secret."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in SECRETS)
    ]


def keep_secrets(folder: Path, *crash_words: str, stages: bool = True) -> Finding:
    """Runs stages, refusals and a crash with secrets about; looks for them everywhere."""
    runs = folder / "runs"
    wrong = refused(folder)
    code, output = start(folder, "-c", CRASH, *crash_words)
    if code == 0 or "ConnectionError" not in output:
        wrong.append(f"the crash did not come: {output[-200:]}")
    outputs = [output]
    if stages:
        write_run(runs)
        text = "\n\n".join(f"the old ship {number} left harbour" for number in range(60))
        (folder / "a.txt").write_text(text)
        corpus = ["--corpus.sources", "[a.txt]", "--corpus.valid_fraction", "0.2"]
        sizes = ["--tokenizer.vocab_size", "200", "--shards.num_workers", "1"]
        for words in (["prepare", "--run.name", "other", *corpus, *sizes],
                      ["export", "--run.name", "demo"]):  # fmt: skip
            code, output = start(folder, "-m", "magicbert", *words)
            outputs.append(output)
            if code:
                wrong.append(f"{words[0]}: exit {code}: {output[-200:]}")
    shown = sum(secret in output for output in outputs for secret in SECRETS)
    files = leaked(runs) if stages else []
    figure = (
        f"3 secrets in environment, config and command line; {len(outputs) + 6} commands, a crash "
        f"among them: {shown} shown, {len(files)} files hold one"
    )
    is_fine = not shown and not files and not wrong
    return Finding(is_fine, "; ".join([figure, *files, *wrong[:3]]), len(outputs) + 6)


@row(
    "G5",
    fault="HF_TOKEN, WANDB_API_KEY and https://user:password@host in environment, configuration, "
    "command line and in the exception of a crash",
    expected="in no output, log, trail, prepared data or export; refused in configurations",
    tier="P",
)
def kept_secrets(folder: Path, is_thorough: bool) -> Finding:
    return keep_secrets(folder, stages=is_thorough)


@mutant("G5", "nothing is masked")
def without_masks(folder: Path, is_thorough: bool) -> Finding:
    with patch(f"{__name__}.refused", lambda folder: []):
        return keep_secrets(folder, "unmasked", stages=False)
