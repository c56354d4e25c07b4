"""The BERT supernet and a batch without memory: what a plan counts on instead of training."""

from __future__ import annotations

import torch

from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.bert.generator import GeneratorSizes
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.state_matching import StateMatching
from magicbert.bert.supernet import BertSupernet, EncoderSupernet, supernet_config
from magicbert.bert.taught_supernet import TaughtSupernet
from magicbert.config.sections import ModelSection, ObjectiveSection
from magicbert.data.batch import TokenBatch
from magicbert.data.layout import RowLayout
from magicbert.space import SearchSpace

NO_MEMORY = torch.device("meta")
MLM = ObjectiveSection()


class Rehearsal(EncoderSupernet):
    """A supernet on the meta device: it has shapes, but no values to look at.

    Attributes:
        is_packed: rows hold several documents; else they are full.
    """

    is_packed = False

    def segments(self, batch: TokenBatch) -> Segments:
        """Returns segments that do not depend on values."""
        if not self.is_packed:
            return Segments.full(batch.input_ids.shape[1], NO_MEMORY)
        ids = batch.segment_ids
        mask = (ids[:, :, None] == ids[:, None, :])[:, None]
        return Segments(ids, torch.empty_like(ids), None, mask, True)


class RehearsalSupernet(Rehearsal, BertSupernet):
    """The supernet of masked language modelling without memory."""


class RehearsalTaughtSupernet(Rehearsal, TaughtSupernet):
    """The supernet whose states are compared with a teacher's, without memory."""


class RehearsalElectraSupernet(Rehearsal, ElectraSupernet):
    """The supernet of replaced-token detection without memory."""


def rehearsal_supernet(
    space: SearchSpace,
    model: ModelSection,
    vocab_size: int,
    *,
    is_packed: bool,
    objective: ObjectiveSection = MLM,
    matching: StateMatching | None = None,
) -> Rehearsal:
    """Builds a supernet without memory.

    Args:
        space: candidates per layer.
        model: sizes.
        vocab_size: rows of the token table.
        is_packed: rows hold several documents.
        objective: decides what stands on top of the encoder and beside it.
        matching: states that are compared with a teacher's; ``None`` = none.
    """
    config = supernet_config(model, vocab_size, 0, backend="torch")
    with NO_MEMORY:
        if matching is not None:
            supernet: Rehearsal = RehearsalTaughtSupernet(space, config, 0, matching)
        elif objective.name == "mlm":
            supernet = RehearsalSupernet(space, config, seed=0)
        else:
            sizes = GeneratorSizes.of(objective, config.hidden_size, space.num_layers)
            supernet = RehearsalElectraSupernet(space, config, 0, sizes)
    supernet.is_packed = is_packed
    return supernet


def rehearsal_batch(rows: int, length: int, predicted_share: float) -> TokenBatch:
    """Returns a micro-batch without memory.

    Args:
        rows: of the micro-batch.
        length: tokens per row.
        predicted_share: share of the tokens that are predicted.
    """
    ids = torch.empty(rows, length, dtype=torch.int64, device=NO_MEMORY)
    num_predicted = round(rows * length * predicted_share)
    positions = torch.empty(num_predicted, dtype=torch.int64, device=NO_MEMORY)
    layout = RowLayout(
        num_tokens=rows * length, has_padding=False, is_packed=False, num_runs=rows, has_holes=False
    )
    return TokenBatch(ids, ids, positions, positions, (), layout)
