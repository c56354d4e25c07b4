"""The model card: what the model is, what it costs, how good it is, where it comes from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.export.card_records import (
    RunFacts,
    fine_tuning_section,
    limitations_section,
    training_section,
)
from magicbert.export.provenance import Provenance
from magicbert.markdown import markdown_table
from magicbert.space import Architecture
from magicbert.space.cost import CostModel


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between the cards of two objectives.

    Attributes:
        title: of the table of scores.
        what: the model, in the introduction.
        tag: for the hub.
        pipeline: the hub's name of what it does; empty = there is none.
        loader: class of transformers that loads it, head included.
        example: lines of Python that use ``model`` and ``tokenizer``.
        terms: what the loss is a mean over.
    """

    title: str
    what: str
    tag: str
    pipeline: str
    loader: str
    example: str
    terms: str


KINDS = {
    "mlm": Kind(
        "masked-language modelling",
        "A masked-language encoder",
        "masked-lm",
        "fill-mask",
        "AutoModelForMaskedLM",
        'fill = pipeline("fill-mask", model=model, tokenizer=tokenizer)\n'
        'print(fill(f"The capital of France is {tokenizer.mask_token}."))\n',
        "predicted token",
    ),
    "rtd": Kind(
        "replaced-token detection",
        "A discriminator of replaced tokens (ELECTRA)",
        "electra",
        "",
        "AutoModelForPreTraining",
        'tokens = tokenizer("The capital of France is violin.", return_tensors="pt")\n'
        "print(model(**tokens).logits > 0)  # the tokens that look replaced\n",
        "token",
    ),
}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """Everything that a model card says.

    Attributes:
        name: heading, usually the run's name.
        license: Hugging Face licence id.
        language: language code.
        config: sizes of the model.
        architecture: its operators.
        costs: of its operators, for rows of ``length``.
        length: tokens of a row in training.
        run: corpus, settings and scores, of the run's records.
        provenance: where it comes from.
    """

    name: str
    license: str
    language: str
    config: MagicBertConfig
    architecture: Architecture
    costs: CostModel
    length: int
    run: RunFacts
    provenance: Provenance

    @property
    def kind(self) -> Kind:
        """What the model was trained to do."""
        return KINDS[self.provenance.result.get("objective", "mlm")]


def model_card(facts: CardFacts) -> str:
    """Returns the text of ``README.md``."""
    sections = (
        front_matter(facts),
        introduction(facts),
        usage(facts.kind),
        architecture_section(facts),
        cost_section(facts),
        training_section(facts.run, facts.provenance),
        score_section(facts),
        fine_tuning_section(facts.run),
        limitations_section(facts.run, facts.language, facts.config.max_position_embeddings),
        provenance_section(facts),
    )
    return "\n\n".join(sections) + "\n"


def front_matter(facts: CardFacts) -> str:
    """Returns the metadata that the Hugging Face hub reads."""
    metadata = {
        "license": facts.license,
        "language": facts.language,
        "library_name": "transformers",
        "pipeline_tag": facts.kind.pipeline,
        "tags": ["magicbert", facts.kind.tag, "neural-architecture-search"],
    }
    if not facts.kind.pipeline:
        del metadata["pipeline_tag"]
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---"


def introduction(facts: CardFacts) -> str:
    """Returns the heading and one sentence."""
    total = facts.costs.cost(facts.architecture).parameters
    return (
        f"# {facts.name}\n\n"
        f"{facts.kind.what} of {len(facts.architecture)} layers and {total:,} parameters, "
        "each layer one operator of a magicbert search space."
    )


def usage(kind: Kind) -> str:
    """Returns how to load the model."""
    more = ", pipeline" if kind.pipeline else ""
    return (
        "## Use\n\n"
        "```python\n"
        f"from transformers import {kind.loader}, AutoTokenizer{more}\n\n"
        'folder = "path/to/this/folder"\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)\n"
        f"model = {kind.loader}.from_pretrained(folder, trust_remote_code=True)\n"
        f"{kind.example}"
        "```\n\n"
        "Without `trust_remote_code` transformers asks before it runs the files of this folder. "
        "`AutoModel`, `AutoModelForSequenceClassification`, `AutoModelForTokenClassification` and "
        "`AutoModelForQuestionAnswering` load it for fine-tuning. magicbert itself is not needed: "
        "the Python files beside this card are the whole model. `manifest.json` holds the digest "
        "of every file."
    )


def architecture_section(facts: CardFacts) -> str:
    """Returns the stack, runs of equal layers in one row."""
    rows = [
        (f"{first}" if first == last else f"{first}-{last}", f"`{name}`")
        for name, first, last in runs(facts.architecture)
    ]
    config = facts.config
    return (
        f"## Architecture\n\n`{facts.architecture}`\n\n"
        f"Hidden size {config.hidden_size}, vocabulary {config.vocab_size:,}, up to "
        f"{config.max_position_embeddings} positions, post-layer-norm. `mha{{heads}}` is "
        "self-attention, `ffn{inner}` a feed-forward layer (4 x hidden without a number), "
        "`conv{kernel}` two stacked separable convolutions, `conv{kernel}x{inner}` the widened "
        f"form of them.\n\n{markdown_table(('layers', 'operator'), rows)}"
    )


def runs(architecture: Architecture) -> Iterator[tuple[str, int, int]]:
    """Yields ``(operator, first layer, last layer)`` of equal neighbours, counted from 1."""
    layer = 1
    for name, group in itertools.groupby(architecture):
        length = len(list(group))
        yield name, layer, layer + length - 1
        layer += length


def cost_section(facts: CardFacts) -> str:
    """Returns parameters and FLOPs, split by operator."""
    total = facts.costs.cost(facts.architecture)
    counts = {name: facts.architecture.operators.count(name) for name in facts.architecture}
    parts = [("embeddings", "", facts.costs.fixed)]
    parts += [
        (f"`{name}`", str(counts[name]), cost)
        for name, cost in facts.costs.by_operator(facts.architecture).items()
    ]
    parts.append(("**encoder**", str(len(facts.architecture)), total))
    rows = [
        (part, layers, f"{cost.parameters:,}", f"{cost.parameters / total.parameters:.1%}",
         f"{cost.flops / 1e6:,.1f}")
        for part, layers, cost in parts
    ]  # fmt: skip
    header = ("part", "layers", "parameters", "share", "MFLOPs")
    return (
        "## Cost\n\n"
        f"{markdown_table(header, rows)}\n\n"
        f"MFLOPs of one forward of {facts.length} tokens, a multiply-add counted as two. "
        "The head is not counted."
    )


def score_section(facts: CardFacts) -> str:
    """Returns how well the model predicts held-out text."""
    result = facts.provenance.result
    labels = (
        ("valid_loss", f"loss on held-out text (nats per {facts.kind.terms})", ".4f"),
        ("valid_accuracy", "accuracy on held-out text", ".4f"),
        ("unigram_entropy", "unigram entropy of the same targets (nats)", ".4f"),
        ("steps", "optimizer steps", ",d"),
        ("tokens", "tokens seen", ",d"),
    )
    rows = [
        (label, format(result[name], style))
        for name, label, style in labels
        if result.get(name) is not None
    ]
    if not rows:
        return "## Scores\n\nThe training stage left no result."
    note = "" if result.get("finished", True) else "\n\n**The training was not finished.**"
    return f"## Scores\n\n{markdown_table((facts.kind.title, ''), rows)}{note}"


def provenance_section(facts: CardFacts) -> str:
    """Returns the digests and versions that identify the model."""
    origin = facts.provenance
    rows = [
        ("stage", origin.stage),
        ("configuration", origin.config_digest),
        ("prepared data", origin.data_digest),
        ("tokenizer", origin.tokenizer_digest),
        ("commit", origin.commit),
        ("magicbert", origin.version),
        *((name, version) for name, version in origin.packages.items()),
    ]
    named = [(name, f"`{value}`") for name, value in rows if value]
    return f"## Provenance\n\n{markdown_table(('what', 'digest or version'), named)}"
