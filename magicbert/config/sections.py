"""The sections shared by the verbs. Defaults live here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSection:
    """Where a run stands on disk."""

    root: str = option("runs", "folder that holds all runs")
    name: str = option("run", "name of the run: its tree is <root>/<name>")
    label: str = option("", "suffix of the stage folder, to keep several models in one run")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.name in ("", ".", "..") or "/" in self.name:
            yield f"name: must be a plain folder name, got {self.name!r}"
        if "/" in self.label:
            yield f"label: must be a plain suffix, got {self.label!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchSection:
    """How ranks are started."""

    num_ranks: int = option(1, "ranks on this host; 0 = one per visible device")
    hostfile: str = option("", "DeepSpeed hostfile for several hosts; empty = this host only")
    master_port: int = option(0, "rendezvous port; 0 = a free one")
    threads_per_rank: int = option(0, "CPU threads per rank; 0 = cores divided by ranks")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.num_ranks < 0:
            yield f"num_ranks: must be 0 or more, got {self.num_ranks}"
        if not 0 <= self.master_port < 65536:
            yield f"master_port: must be a port number, got {self.master_port}"
        if self.threads_per_rank < 0:
            yield f"threads_per_rank: must be 0 or more, got {self.threads_per_rank}"


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSection:
    """Raw text in."""

    sources: tuple[str, ...] = option(
        ("embedded",),
        "files, folders, globs, 'embedded' (text of this Python), or 'hf:NAME[:CONFIG][:SPLIT]'",
    )
    valid_sources: tuple[str, ...] = option(
        (), "held-out sources; empty = split off by document hash"
    )
    text_field: str = option("text", "field that holds the text in JSONL and Parquet")
    document_separator: Literal["blank-line", "line", "file"] = option(
        "blank-line", "what ends a document in plain text"
    )
    valid_fraction: float = option(0.01, "share of documents held out, chosen by document hash")
    deduplicate: bool = option(True, "drop documents whose text was seen before")
    on_bad_utf8: Literal["refuse", "skip"] = option(
        "refuse", "what to do with a document that is not UTF-8"
    )
    max_documents: int = option(0, "stop after so many documents; 0 = all")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if not self.sources:
            yield "sources: give at least one file, folder, glob, 'embedded' or 'hf:NAME'"
        if not 0.0 <= self.valid_fraction < 1.0:
            yield f"valid_fraction: must be in [0, 1), got {self.valid_fraction}"
        if self.valid_fraction == 0.0 and not self.valid_sources:
            yield "valid_fraction: must be above 0 when valid_sources is empty"
        if self.max_documents < 0:
            yield f"max_documents: must be 0 or more, got {self.max_documents}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerSection:
    """The tokenizer: trained on the corpus or loaded."""

    kind: Literal["wordpiece", "bpe", "load"] = option(
        "wordpiece", "train WordPiece, train byte-level BPE, or load"
    )
    path: str = option("", "for 'load': vocab.txt, tokenizer.json, a folder or a hub name")
    vocab_size: int = option(30522, "number of tokens to train")
    lowercase: bool = option(True, "fold case (WordPiece)")
    sample_megabytes: int = option(64, "text to train on at most, in MB, spread over the corpus")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.vocab_size < 100:
            yield f"vocab_size: must be at least 100, got {self.vocab_size}"
        if self.kind == "load" and not self.path:
            yield "path: needed when kind is 'load'"
        if self.sample_megabytes < 1:
            yield f"sample_megabytes: must be at least 1, got {self.sample_megabytes}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSection:
    """Packed rows of tokens."""

    length: int = option(128, "tokens per row, special tokens included")
    layout: Literal["full", "packed"] = option(
        "full",
        "'full': RoBERTa's FULL-SENTENCES, rows cross documents; "
        "'packed': whole documents side by side with segment ids",
    )
    rows_per_shard: int = option(65536, "rows in one Arrow file")
    num_workers: int = option(0, "processes that tokenise; 0 = one per core")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if not 8 <= self.length <= 65536:
            yield f"length: must be in 8..65536, got {self.length}"
        if self.rows_per_shard < 1:
            yield f"rows_per_shard: must be at least 1, got {self.rows_per_shard}"
        if self.num_workers < 0:
            yield f"num_workers: must be 0 or more, got {self.num_workers}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskingSection:
    """Which tokens are predicted (BERT 3.1; ELECTRA 3.1)."""

    rule: Literal["bert", "electra"] = option(
        "bert", "'bert': 80% [MASK], 10% random, 10% kept; 'electra': 85% [MASK], 15% kept"
    )
    probability: float = option(0.15, "share of the tokens that are predicted")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if not 0.0 < self.probability < 1.0:
            yield f"probability: must be in (0, 1), got {self.probability}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceSection:
    """The search space: which operators each layer may hold."""

    preset: Literal["main", "analysis", "custom"] = option(
        "main", "'main' and 'analysis' are the paper's; 'custom' takes candidates as given"
    )
    num_layers: int = option(0, "layers; 0 = the preset's")
    candidates: tuple[str, ...] = option(
        (), "operators of each layer, such as [mha12, ffn, conv3, conv5]; empty = the preset's"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.num_layers < 0:
            yield f"num_layers: must be 0 or more, got {self.num_layers}"
        if self.preset == "custom" and (not self.num_layers or not self.candidates):
            yield "preset: 'custom' needs num_layers and candidates"
        if len(set(self.candidates)) != len(self.candidates):
            yield f"candidates: must be distinct, got {list(self.candidates)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSection:
    """Sizes and dropout of the encoder."""

    hidden_size: int = option(768, "width of the encoder")
    max_length: int = option(512, "longest row the position table can hold")
    dropout: float = option(0.1, "dropout of operator outputs and embeddings")
    attention_dropout: float = option(0.1, "dropout of the attention weights")
    initializer_range: float = option(0.02, "standard deviation of the initial weights")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.hidden_size < 4:
            yield f"hidden_size: must be at least 4, got {self.hidden_size}"
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                yield f"{name}: must be in [0, 1), got {getattr(self, name)}"
        if self.max_length < 8:
            yield f"max_length: must be at least 8, got {self.max_length}"
        if self.initializer_range <= 0:
            yield f"initializer_range: must be above 0, got {self.initializer_range}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSection:
    """Which path is trained at each step."""

    method: Literal["uniform", "magic-t"] = option(
        "uniform", "'uniform' (SPOS) or 'magic-t' (consecutive paths differ in num_changes layers)"
    )
    num_changes: int = option(1, "MAGIC-T's k: operators changed from one step to the next")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.num_changes < 1:
            yield f"num_changes: must be at least 1, got {self.num_changes}"


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentSection:
    """MAGIC-A: block outputs are drawn to those of an anchor path."""

    enabled: bool = option(False, "add the alignment loss (MAGIC-A; with magic-t: MAGIC-AT)")
    weight: float = option(0.5, "lambda, the weight of the alignment loss")
    num_blocks: int = option(4, "aligned points, at block ends; 0 = after every layer")
    form: Literal["mean", "sum"] = option(
        "mean", "mean over the aligned points, or their sum as printed in the paper"
    )
    anchor: Literal["best", "top-percent"] = option(
        "best", "anchor is the best path so far, or the one at top_percent of a sampled pool"
    )
    every: int = option(100, "steps between two comparisons of anchor and sample; 1 = the paper's")
    num_dev_batches: int = option(5, "dev batches that score anchor and sample")
    top_percent: float = option(30.0, "for 'top-percent': p, the anchor's rank in percent")
    tolerance: float = option(10.0, "for 'top-percent': r, kept while within (p +- r) percent")
    pool_size: int = option(50, "for 'top-percent': sampled paths that are ranked")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.weight < 0:
            yield f"weight: must be 0 or more, got {self.weight}"
        for name in ("every", "num_dev_batches", "pool_size"):
            if getattr(self, name) < 1:
                yield f"{name}: must be at least 1, got {getattr(self, name)}"
        if self.num_blocks < 0:
            yield f"num_blocks: must be 0 or more, got {self.num_blocks}"
        for name in ("top_percent", "tolerance"):
            if not 0.0 <= getattr(self, name) <= 100.0:
                yield f"{name}: must be in [0, 100], got {getattr(self, name)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSection:
    """AdamW with a warm-up schedule."""

    learning_rate: float = option(5e-4, "peak learning rate")
    beta1: float = option(0.9, "decay of the first moment")
    beta2: float = option(0.98, "decay of the second moment")
    epsilon: float = option(1e-6, "added to the root of the second moment")
    weight_decay: float = option(0.01, "decoupled decay; norms and biases are left out")
    clip_norm: float = option(1.0, "largest norm of the gradient; 0 = no clipping")
    warmup_steps: int = option(10000, "steps of linear warm-up")
    schedule: Literal["linear", "cosine", "constant"] = option("linear", "decay after warm-up")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.learning_rate <= 0:
            yield f"learning_rate: must be above 0, got {self.learning_rate}"
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                yield f"{name}: must be in [0, 1), got {getattr(self, name)}"
        if self.epsilon <= 0:
            yield f"epsilon: must be above 0, got {self.epsilon}"
        for name in ("weight_decay", "clip_norm", "warmup_steps"):
            if getattr(self, name) < 0:
                yield f"{name}: must be 0 or more, got {getattr(self, name)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSection:
    """Steps, batches, precision, and what is written when."""

    seed: int = option(0, "seed of everything random in this stage")
    num_steps: int = option(62500, "optimizer steps")
    rows_per_step: int = option(1024, "rows of one optimizer step, over all ranks")
    rows_per_micro_batch: int = option(32, "rows of one forward on one rank")
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "bf16", "number format of forward and backward"
    )
    zero_stage: Literal[0, 1, 2] = option(1, "DeepSpeed ZeRO stage")
    offload_optimizer: bool = option(
        False, "keep fp32 masters and AdamW's moments in host memory (not at ZeRO stage 0)"
    )
    backend: Literal["auto", "triton", "torch"] = option("auto", "which kernels to use")
    log_every: int = option(50, "steps between two log lines")
    evaluate_every: int = option(1000, "steps between two evaluations on the valid split")
    num_eval_batches: int = option(50, "valid micro-batches of one evaluation, over all ranks")
    num_eval_paths: int = option(4, "fixed random paths that an evaluation of a supernet averages")
    checkpoint_every: int = option(1000, "steps between two checkpoints")
    keep_checkpoints: int = option(2, "checkpoints kept")
    max_minutes: float = option(0.0, "stop with a checkpoint after so many minutes; 0 = no limit")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        for name in (
            "num_steps", "rows_per_step", "rows_per_micro_batch", "log_every", "evaluate_every",
            "num_eval_batches", "num_eval_paths", "checkpoint_every", "keep_checkpoints",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                yield f"{name}: must be at least 1, got {getattr(self, name)}"
        for name in ("seed", "max_minutes"):
            if getattr(self, name) < 0:
                yield f"{name}: must be 0 or more, got {getattr(self, name)}"
        if self.offload_optimizer and self.zero_stage == 0:
            yield "offload_optimizer: ZeRO stage 0 has nothing to offload; set zero_stage to 1 or 2"


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSection:
    """Progressive shrinking of the space under limits (NAS-BERT 3.2.2; PS-op)."""

    seed: int = option(0, "seed of the sampled candidates")
    max_parameters: int = option(0, "most parameters of the exported encoder; 0 = no limit")
    min_parameters: int = option(0, "fewest parameters; 0 = no limit")
    max_flops: float = option(0.0, "most forward FLOPs of one sequence of the row length; 0 = none")
    num_rounds: int = option(4, "rounds of shrinking")
    samples_per_round: int = option(1000, "architectures scored in a round (E)")
    drop_fraction: float = option(
        0.3, "share of the surplus operators (beyond one per layer) that a round drops (R)"
    )
    num_finalists: int = option(100, "candidates sampled in the shrunk space and scored (T)")
    num_dev_batches: int = option(5, "dev batches that score a candidate in a round")
    num_final_batches: int = option(20, "dev batches that rank the finalists")
    rows_per_batch: int = option(32, "rows of one dev batch")
    num_results: int = option(10, "architectures written")
    num_random: int = option(
        4, "architectures drawn uniformly within the limits, written as baselines to retrain"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        for name in (
            "samples_per_round", "num_finalists", "num_dev_batches", "num_final_batches",
            "rows_per_batch", "num_results",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                yield f"{name}: must be at least 1, got {getattr(self, name)}"
        for name in (
            "seed", "num_rounds", "max_parameters", "min_parameters", "max_flops", "num_random",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                yield f"{name}: must be 0 or more, got {getattr(self, name)}"
        if not 0.0 <= self.drop_fraction < 1.0:
            yield f"drop_fraction: must be in [0, 1), got {self.drop_fraction}"
        if self.max_parameters and self.min_parameters > self.max_parameters:
            yield (
                f"min_parameters: {self.min_parameters} is above "
                f"max_parameters {self.max_parameters}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneSection:
    """Fine-tuning of one model on several tasks, over learning rates and seeds."""

    tasks: tuple[str, ...] = option(
        ("embedded",), "cola sst2 mrpc stsb qqp mnli qnli rte wnli, or 'embedded' (offline)"
    )
    data: str = option(
        "", "folder of GLUE TSV files; empty = $MAGICBERT_DATA/glue, else `datasets`"
    )
    model: str = option("", "folder or hub id of the model; empty = the run's own export")
    learning_rates: tuple[float, ...] = option((1e-5, 2e-5, 3e-5), "grid of peak learning rates")
    seeds: tuple[int, ...] = option((0, 1, 2), "seeds of one setting")
    num_epochs: float = option(3.0, "passes over the training rows")
    batch_size: int = option(32, "rows per step")
    max_length: int = option(128, "tokens per example at most")
    weight_decay: float = option(0.1, "decoupled weight decay")
    warmup_ratio: float = option(0.06, "share of the steps spent in warm-up")
    max_train_rows: int = option(0, "train on so many rows, chosen by a fixed seed; 0 = all")
    mnli_warm_start: bool = option(
        True, "RTE, MRPC and STS-B start from the MNLI model if there is one"
    )
    trust_remote_code: bool = option(False, "run model code that comes with `model`")
    max_minutes: float = option(
        0.0, "stop after so many minutes, keeping finished cells; 0 = no limit"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        for name in ("tasks", "learning_rates", "seeds"):
            if not getattr(self, name):
                yield f"{name}: must not be empty"
        for name in ("batch_size", "max_length", "num_epochs"):
            if getattr(self, name) <= 0:
                yield f"{name}: must be above 0, got {getattr(self, name)}"
        if min(self.learning_rates, default=1.0) <= 0:
            yield f"learning_rates: must be above 0, got {list(self.learning_rates)}"
        if min(self.seeds, default=0) < 0:
            yield f"seeds: must be 0 or more, got {list(self.seeds)}"
        for name in ("weight_decay", "max_train_rows", "max_minutes"):
            if getattr(self, name) < 0:
                yield f"{name}: must be 0 or more, got {getattr(self, name)}"
        if not 0.0 <= self.warmup_ratio <= 1.0:
            yield f"warmup_ratio: must be in [0, 1], got {self.warmup_ratio}"
