"""Masking against ``DataCollatorForLanguageModeling`` of transformers, side by side.

Both turn 256 rows of 128 tokens into masked ids and labels on one thread: the collator from lists
of ids, as a `datasets` loader gives them, and from tensors; ours from the uint16 rows that
``magicbert prepare`` stores. Rounds alternate between them, time is that of the
process, and the median over the rounds is taken.

    OMP_NUM_THREADS=1 python benchmarks/masking.py
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertTokenizerFast, DataCollatorForLanguageModeling

from magicbert.config.sections import MaskingSection
from magicbert.data.counter_hash import key_of
from magicbert.data.masking import Masker
from magicbert.trail import current_commit

ROWS, LENGTH, VOCAB, SPECIAL = 256, 128, 30522, 5
ROUNDS = 15
RESULT = Path(__file__).parent / "results" / "masking.json"


def make_collator() -> DataCollatorForLanguageModeling:
    """Returns the collator with a vocabulary of BERT's size."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{number}" for number in range(VOCAB - len(words))]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("\n".join(words))
        tokenizer = BertTokenizerFast(vocab_file=str(vocabulary))
    return DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)


def contenders() -> dict[str, tuple[Callable[[], Any], int]]:
    """Returns what is timed and how often a round repeats it."""
    rows = np.random.default_rng(0).integers(SPECIAL, VOCAB, (ROWS, LENGTH)).astype(np.uint16)
    rows[:, 0], rows[:, -1] = 2, 3
    collator = make_collator()
    lists = [{"input_ids": row.tolist()} for row in rows]
    tensors = [{"input_ids": torch.from_numpy(row.astype(np.int64))} for row in rows]
    masker = Masker(MaskingSection(), vocab_size=VOCAB, mask_id=4, special_ids=range(SPECIAL))
    samples = np.arange(ROWS)

    def ours() -> tuple[torch.Tensor, ...]:
        masked = masker(rows, key_of(0, 0, samples))
        arrays = (masked.input_ids, masked.positions, masked.labels)
        return tuple(map(torch.from_numpy, arrays))

    return {
        "collator, from lists": (lambda: collator(lists), 2),
        "collator, from tensors": (lambda: collator(tensors), 2),
        "magicbert": (ours, 50),
    }


def measure() -> dict[str, float]:
    """Returns millions of tokens a second of each contender."""
    functions = contenders()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function, _ in functions.values():
        function()
    for _ in range(ROUNDS):
        for name, (function, repeats) in functions.items():
            start = time.process_time()
            for _ in range(repeats):
                function()
            seconds[name].append((time.process_time() - start) / repeats)
    return {
        name: round(ROWS * LENGTH / statistics.median(times) / 1e6, 2)
        for name, times in seconds.items()
    }


def processor() -> str:
    """Returns the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    """Measures and writes the result."""
    torch.set_num_threads(1)
    speeds = measure()
    packages = ("numpy", "torch", "transformers", "tokenizers")
    result = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/{Path(sys.argv[0]).name}",
        "commit": current_commit(),
        "machine": {
            "processor": processor(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "rows": ROWS,
        "length": LENGTH,
        "rounds": ROUNDS,
        "unit": "million tokens per second of process time, one thread, median of the rounds",
        "speeds": speeds,
        "ratio_to_lists": round(speeds["magicbert"] / speeds["collator, from lists"], 1),
        "ratio_to_tensors": round(speeds["magicbert"] / speeds["collator, from tensors"], 1),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
