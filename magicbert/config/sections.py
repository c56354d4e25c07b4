"""The sections shared by the verbs. Defaults live here and nowhere else."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option

# File systems take 255; marks of folders that are written aside are added.
MAX_NAME_BYTES = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSection:
    """Where a run stands on disk."""

    root: str = option("runs", "folder that holds all runs")
    name: str = option("run", "name of the run: its tree is <root>/<name>")
    label: str = option("", "suffix of the stage folder, to keep several models in one run")
    verify: Literal["full", "fast"] = option(
        "full", "check of prepared data before use: every byte by sha256, or sizes alone"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.name in ("", ".", "..") or not is_plain_name(self.name):
            yield f"name: must be a plain folder name, got {self.name[:80]!r}"
        if not is_plain_name(self.label):
            yield f"label: must be a plain suffix, got {self.label[:80]!r}"


def is_plain_name(name: str) -> bool:
    """Says whether a name stays one folder on any system, also where Unicode is normalised."""
    normal = unicodedata.normalize("NFKC", name)
    is_short = len(name.encode()) <= MAX_NAME_BYTES
    return is_short and normal not in (".", "..") and not set("/\\").intersection(normal)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchSection:
    """How ranks are started."""

    num_ranks: int = option(1, "ranks on this host; 0 = one per visible device", within="[0, 4096]")
    hostfile: str = option("", "DeepSpeed hostfile for several hosts; empty = this host only")
    master_port: int = option(0, "rendezvous port; 0 = a free one", within="[0, 65535]")
    threads_per_rank: int = option(
        0, "CPU threads per rank; 0 = cores divided by ranks", within="[0, 4096]"
    )
    join_minutes: float = option(
        10.0, "limit for all ranks to find each other, in minutes", within="(0, 100000]"
    )
    start_minutes: float = option(
        30.0, "limit for model, checkpoint and first step, in minutes", within="(0, 100000]"
    )
    step_minutes: float = option(10.0, "limit of one step, in minutes", within="(0, 100000]")
    evaluate_minutes: float = option(
        60.0, "limit of one evaluation, in minutes", within="(0, 100000]"
    )
    save_minutes: float = option(
        60.0, "limit of one save, and of writing the result, in minutes", within="(0, 100000]"
    )


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
    valid_fraction: float = option(
        0.01, "share of documents held out, chosen by document hash", within="[0, 1)"
    )
    deduplicate: bool = option(True, "drop documents whose text was seen before")
    on_bad_utf8: Literal["refuse", "skip"] = option(
        "refuse", "what to do with a document that is not UTF-8"
    )
    max_documents: int = option(0, "stop after so many documents; 0 = all", within="[0, 1e12]")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if not self.sources:
            yield "sources: give at least one file, folder, glob, 'embedded' or 'hf:NAME'"
        if self.valid_fraction == 0.0 and not self.valid_sources:
            yield "valid_fraction: must be above 0 when valid_sources is empty"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerSection:
    """The tokenizer: trained on the corpus or loaded."""

    kind: Literal["wordpiece", "bpe", "load"] = option(
        "wordpiece", "train WordPiece, train byte-level BPE, or load"
    )
    path: str = option("", "for 'load': vocab.txt, tokenizer.json, a folder or a hub name")
    vocab_size: int = option(30522, "number of tokens to train", within="[100, 1e7]")
    lowercase: bool = option(True, "fold case (WordPiece)")
    sample_megabytes: int = option(
        64, "text to train on at most, in MB, spread over the corpus", within="[1, 1e6]"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.kind == "load" and not self.path:
            yield "path: needed when kind is 'load'"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSection:
    """Packed rows of tokens."""

    length: int = option(128, "tokens per row, special tokens included", within="[8, 65536]")
    layout: Literal["full", "packed"] = option(
        "full",
        "'full': RoBERTa's FULL-SENTENCES, rows cross documents; "
        "'packed': whole documents side by side with segment ids",
    )
    rows_per_shard: int = option(65536, "rows in one Arrow file", within="[1, 1e8]")
    num_workers: int = option(0, "processes that tokenise; 0 = one per core", within="[0, 4096]")


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskingSection:
    """Which tokens are predicted (BERT 3.1; ELECTRA 3.1)."""

    rule: Literal["bert", "electra"] = option(
        "bert", "'bert': 80% [MASK], 10% random, 10% kept; 'electra': 85% [MASK], 15% kept"
    )
    probability: float = option(0.15, "share of the tokens that are predicted", within="(0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceSection:
    """The search space: which operators each layer may hold."""

    preset: Literal["main", "analysis", "custom"] = option(
        "main", "'main' and 'analysis' are the paper's; 'custom' takes candidates as given"
    )
    num_layers: int = option(0, "layers; 0 = the preset's", within="[0, 1000]")
    candidates: tuple[str, ...] = option(
        (), "operators of each layer, such as [mha12, ffn, conv3, conv5]; empty = the preset's"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.preset == "custom" and (not self.num_layers or not self.candidates):
            yield "preset: 'custom' needs num_layers and candidates"
        if len(set(self.candidates)) != len(self.candidates):
            yield f"candidates: must be distinct, got {list(self.candidates)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSection:
    """Sizes and dropout of the encoder."""

    hidden_size: int = option(768, "width of the encoder", within="[4, 65536]")
    max_length: int = option(512, "longest row the position table can hold", within="[8, 65536]")
    dropout: float = option(0.1, "dropout of operator outputs and embeddings", within="[0, 1)")
    attention_dropout: float = option(0.1, "dropout of the attention weights", within="[0, 1)")
    initializer_range: float = option(
        0.02, "standard deviation of the initial weights", within="(0, 10]"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSection:
    """Which path is trained at each step."""

    method: Literal["uniform", "magic-t"] = option(
        "uniform", "'uniform' (SPOS) or 'magic-t' (consecutive paths differ in num_changes layers)"
    )
    num_changes: int = option(
        1, "MAGIC-T's k: operators changed from one step to the next", within="[1, 1000]"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentSection:
    """MAGIC-A: block outputs are drawn to those of an anchor path."""

    enabled: bool = option(False, "add the alignment loss (MAGIC-A; with magic-t: MAGIC-AT)")
    weight: float = option(0.5, "lambda, the weight of the alignment loss", within="[0, 1e6]")
    num_blocks: int = option(
        4, "aligned points, at block ends; 0 = after every layer", within="[0, 1000]"
    )
    form: Literal["mean", "sum"] = option(
        "mean", "mean over the aligned points, or their sum as printed in the paper"
    )
    anchor: Literal["best", "top-percent"] = option(
        "best", "anchor is the best path so far, or the one at top_percent of a sampled pool"
    )
    every: int = option(
        100,
        "steps between two comparisons of anchor and sample; 1 = the paper's",
        within="[1, 1e9]",
    )
    num_dev_batches: int = option(5, "dev batches that score anchor and sample", within="[1, 1e6]")
    top_percent: float = option(
        30.0, "for 'top-percent': p, the anchor's rank in percent", within="[0, 100]"
    )
    tolerance: float = option(
        10.0, "for 'top-percent': r, kept while within (p +- r) percent", within="[0, 100]"
    )
    pool_size: int = option(
        50, "for 'top-percent': sampled paths that are ranked", within="[1, 1e6]"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSection:
    """The update rule and its warm-up schedule."""

    name: Literal["adamw", "lamb"] = option("adamw", "'adamw', or 'lamb' for very large batches")
    policy: Literal["path-sparse", "shared-step", "zero-gradient"] = option(
        "path-sparse",
        "operators that were not sampled: 'path-sparse' leaves them alone; to compare, "
        "'shared-step' counts their steps all the same and 'zero-gradient' moves them by momentum "
        "and decay",
    )
    learning_rate: float = option(5e-4, "peak learning rate", within="(0, 10]")
    beta1: float = option(0.9, "decay of the first moment", within="[0, 1)")
    beta2: float = option(0.98, "decay of the second moment", within="[0, 1)")
    epsilon: float = option(1e-6, "added to the root of the second moment", within="[1e-16, 1]")
    weight_decay: float = option(
        0.01, "decoupled decay; norms and biases are left out", within="[0, 10]"
    )
    clip_norm: float = option(
        1.0, "largest norm of the gradient; 0 = no clipping", within="[0, 1e6]"
    )
    warmup_steps: int = option(10000, "steps of linear warm-up", within="[0, 1e9]")
    schedule: Literal["linear", "cosine", "constant"] = option("linear", "decay after warm-up")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSection:
    """Steps, batches, precision, and what is written when."""

    seed: int = option(0, "seed of everything random in this stage", within="[0, 4294967295]")
    num_steps: int = option(62500, "optimizer steps", within="[1, 1e9]")
    rows_per_step: int = option(
        1024, "rows of one optimizer step, over all ranks", within="[1, 1e8]"
    )
    rows_per_micro_batch: int = option(32, "rows of one forward on one rank", within="[1, 1e6]")
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "bf16", "number format of forward and backward"
    )
    zero_stage: Literal[0, 1, 2, 3] = option(1, "DeepSpeed ZeRO stage")
    offload_optimizer: bool = option(
        False, "keep fp32 masters and AdamW's moments in host memory (not at ZeRO stage 0)"
    )
    max_live_parameters: int = option(
        1_000_000_000,
        "ZeRO stage 3: parameters that stay gathered through a step; a path of more is gathered "
        "again for its backward",
        within="[0, 1e13]",
    )
    backend: Literal["auto", "triton", "torch"] = option("auto", "which kernels to use")
    log_every: int = option(50, "steps between two log lines", within="[1, 1e9]")
    evaluate_every: int = option(
        1000, "steps between two evaluations on the valid split", within="[1, 1e9]"
    )
    num_eval_batches: int = option(
        50, "valid micro-batches of one evaluation, over all ranks", within="[1, 1e6]"
    )
    num_eval_paths: int = option(
        4, "fixed random paths that an evaluation of a supernet averages", within="[1, 1e6]"
    )
    checkpoint_every: int = option(1000, "steps between two checkpoints", within="[1, 1e9]")
    keep_checkpoints: int = option(2, "checkpoints kept", within="[1, 1e6]")
    max_minutes: float = option(
        0.0, "stop with a checkpoint after so many minutes; 0 = no limit", within="[0, 1e7]"
    )
    max_skips_in_a_row: int = option(
        20, "stop after so many steps in a row without a finite gradient", within="[1, 1e6]"
    )
    max_skips_per_1000: int = option(
        100,
        "stop after so many of the last 1000 steps without a finite gradient",
        within="[1, 1000]",
    )
    on_spike: Literal["log", "skip", "stop"] = option(
        "log", "what to do with a step whose loss is a spike; 'skip' costs one small all-reduce"
    )
    spike_factor: float = option(
        20.0,
        "a spike is above the median of recent losses by so many median deviations",
        within="[1, 1e6]",
    )
    check_replicas_every: int = option(
        1000,
        "steps between two comparisons of all ranks' weights (stages 0 to 2); 0 = never",
        within="[0, 1e9]",
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.offload_optimizer and self.zero_stage == 0:
            yield "offload_optimizer: ZeRO stage 0 has nothing to offload; take another stage"


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSection:
    """Progressive shrinking of the space under limits (NAS-BERT 3.2.2; PS-op)."""

    seed: int = option(0, "seed of the sampled candidates", within="[0, 4294967295]")
    max_parameters: int = option(
        0, "most parameters of the exported encoder; 0 = no limit", within="[0, 1e12]"
    )
    min_parameters: int = option(0, "fewest parameters; 0 = no limit", within="[0, 1e12]")
    max_flops: float = option(
        0.0, "most forward FLOPs of one sequence of the row length; 0 = none", within="[0, 1e18]"
    )
    num_rounds: int = option(4, "rounds of shrinking", within="[0, 1000]")
    samples_per_round: int = option(1000, "architectures scored in a round (E)", within="[1, 1e7]")
    drop_fraction: float = option(
        0.3,
        "share of the surplus operators (beyond one per layer) that a round drops (R)",
        within="[0, 1)",
    )
    num_finalists: int = option(
        100, "candidates sampled in the shrunk space and scored (T)", within="[1, 1e7]"
    )
    num_dev_batches: int = option(
        5, "dev batches that score a candidate in a round", within="[1, 1e6]"
    )
    num_final_batches: int = option(20, "dev batches that rank the finalists", within="[1, 1e6]")
    rows_per_batch: int = option(32, "rows of one dev batch", within="[1, 1e6]")
    num_results: int = option(10, "architectures written", within="[1, 1e6]")
    num_random: int = option(
        4,
        "architectures drawn uniformly within the limits, written as baselines to retrain",
        within="[0, 1e6]",
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
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
    learning_rates: tuple[float, ...] = option(
        (1e-5, 2e-5, 3e-5), "grid of peak learning rates", within="(0, 10]"
    )
    seeds: tuple[int, ...] = option((0, 1, 2), "seeds of one setting", within="[0, 4294967295]")
    num_epochs: float = option(3.0, "passes over the training rows", within="(0, 1e5]")
    batch_size: int = option(32, "rows per step", within="[1, 1e6]")
    max_length: int = option(128, "tokens per example at most", within="[8, 65536]")
    weight_decay: float = option(0.1, "decoupled weight decay", within="[0, 10]")
    warmup_ratio: float = option(0.06, "share of the steps spent in warm-up", within="[0, 1]")
    max_train_rows: int = option(
        0, "train on so many rows, chosen by a fixed seed; 0 = all", within="[0, 1e12]"
    )
    mnli_warm_start: bool = option(
        True, "RTE, MRPC and STS-B start from the MNLI model if there is one"
    )
    trust_remote_code: bool = option(False, "run model code that comes with `model`")
    max_minutes: float = option(
        0.0, "stop after so many minutes, keeping finished cells; 0 = no limit", within="[0, 1e7]"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        for name in ("tasks", "learning_rates", "seeds"):
            if not getattr(self, name):
                yield f"{name}: must not be empty"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineBenchSection:
    """Setting of `bench engine`: a light chain of layers, so that nothing hides the step's cost."""

    stages: tuple[int, ...] = option((0, 1, 2, 3), "ZeRO stages to measure", within="[0, 3]")
    ranks: tuple[int, ...] = option((1, 2), "numbers of ranks to measure", within="[1, 4096]")
    candidates: tuple[int, ...] = option(
        (4, 26), "operators per layer to measure", within="[1, 1024]"
    )
    peers: bool = option(True, "also measure stock DeepSpeed and torch on the supernet")
    num_layers: int = option(24, "layers of the chain", within="[1, 1024]")
    hidden_size: int = option(256, "width of every layer", within="[1, 65536]")
    rows: int = option(4, "rows of one rank in one step", within="[1, 65536]")
    length: int = option(64, "tokens per row", within="[1, 65536]")
    rounds: int = option(9, "turns of every contender", within="[1, 10000]")
    steps: int = option(3, "timed steps of one turn", within="[1, 10000]")
    peer_rounds: int = option(3, "turns where stock DeepSpeed or torch play", within="[1, 10000]")
    seed: int = option(0, "seed of weights, tokens and paths", within="[0, 4294967295]")
