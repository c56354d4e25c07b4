"""Fine-tuning, and the teacher that it may have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneSection:
    """Fine-tuning of one model on several tasks, over learning rates and seeds."""

    tasks: tuple[str, ...] = option(
        ("embedded",),
        "cola sst2 mrpc stsb qqp mnli qnli rte wnli, squad squad_v2, or 'embedded' and "
        "'embedded_squad' (offline)",
    )
    data: str = option(
        "", "folder of GLUE TSV files; empty = $MAGICBERT_DATA/glue, else `datasets`"
    )
    model: str = option("", "folder or hub id of the model; empty = the run's own export")
    learning_rates: tuple[float, ...] = option(
        (1e-5, 2e-5, 3e-5), "grid of peak learning rates", within="(0, 10]"
    )
    seeds: tuple[int, ...] = option((0, 1, 2), "seeds of one setting", within="[0, 4294967295]")
    num_epochs: float = option(3.0, "passes over the training rows", within="(0, 1e5]")
    batch_size: int = option(32, "rows per step", within="[1, 1e6]")
    max_length: int = option(
        128, "tokens per example at most; of SQuAD see squad.max_length", within="[8, 65536]"
    )
    weight_decay: float = option(0.1, "decoupled weight decay", within="[0, 10]")
    warmup_ratio: float = option(0.06, "share of the steps spent in warm-up", within="[0, 1]")
    max_train_rows: int = option(
        0, "train on so many rows, chosen by a fixed seed; 0 = all", within="[0, 1e12]"
    )
    mnli_warm_start: bool = option(
        True, "RTE, MRPC and STS-B start from the MNLI model if there is one"
    )
    keep_model: bool = option(
        False, "keep the best fine-tuned model of each task as a folder models/<task>"
    )
    trust_remote_code: bool = option(
        False, "run model code that comes with `model` or with a teacher"
    )
    max_minutes: float = option(
        0.0, "stop after so many minutes, keeping finished cells; 0 = no limit", within="[0, 1e7]"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        for name in ("tasks", "learning_rates", "seeds"):
            if not getattr(self, name):
                yield f"{name}: must not be empty"


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneTeacherSection:
    """A fine-tuned teacher beside the labels of a task (NAS-BERT 3.4)."""

    teacher: str = option(
        "",
        "folder of a fine-tuning that kept its models (finetune.keep_model), which holds a teacher "
        "for each task, or folder of one fine-tuned model; empty = labels alone",
    )
    weight: float = option(0.5, "share of the teacher in the loss (lambda)", within="[0, 1]")
    temperature: float = option(
        1.0, "what the logits of both are divided by; scores are not", within="(0, 1000]"
    )
