"""Export to ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxSection:
    """Export to ONNX, checked against torch; needs the extra ``magicbert[onnx]``."""

    enabled: bool = option(False, "write an ONNX folder as well; `--onnx` for short")
    model: str = option(
        "",
        "folder or hub id to convert, with the head that it has, in place of the run's own export",
    )
    trust_remote_code: bool = option(False, "run model code that comes with `model`")
    int8: bool = option(True, "also write a form with int8 weights, dynamically quantised")
    tolerance: float = option(
        1e-4, "largest difference to torch's logits that is accepted", within="(0, 10]"
    )
    task: str = option(
        "",
        "task of GLUE or SQuAD that `model` was fine-tuned on: every form is scored on its dev set",
    )
    data: str = option(
        "",
        "folder of GLUE TSV files; empty = $MAGICBERT_DATA/glue, else `datasets`; of SQuAD see "
        "squad.data",
    )
    as_finetuned: bool = option(
        True,
        "of SQuAD: windows, answers and dev articles as `model` says that it was fine-tuned; "
        "false, or a model that does not say: as the section squad has them",
    )
    num_dev_batches: int = option(
        4, "dev batches of 32 rows that a masked-language model is scored on", within="[1, 1e6]"
    )
    length: int = option(128, "tokens per timed row, as far as it can read", within="[8, 65536]")
    rows: int = option(1, "rows per timed call", within="[1, 4096]")
    rounds: int = option(15, "turns of each form in the timing", within="[1, 10000]")
    threads: int = option(1, "CPU threads of the timed forms", within="[1, 1024]")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if not self.enabled and (self.model or self.task):
            yield f"{'model' if self.model else 'task'}: is for --onnx; set onnx.enabled"
        if self.task and not self.model:
            yield "task: needs onnx.model, the model that was fine-tuned on it"
