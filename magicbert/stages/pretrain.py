"""``magicbert pretrain``: prepared rows -> a trained supernet."""

from __future__ import annotations

from magicbert.bert.spaces import resolve_space
from magicbert.config.roots import PretrainConfig
from magicbert.stages.encoder_training import EncoderTraining
from magicbert.trail import stage_folder


def run(config: PretrainConfig) -> None:
    """Pretrains the supernet of the space, one sampled path a step.

    Raises:
        UserError: configuration, prepared data and machine do not fit together.
    """
    EncoderTraining(
        verb="pretrain",
        config=config,
        folder=stage_folder(config.run, "pretrain"),
        product="supernet",
        space=resolve_space(config.space, config.model.hidden_size),
        sampling=config.sampling,
        alignment=config.alignment,
    ).run()
