"""The teacher that plans of compression and of distillation need, without memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from magicbert.bert.cost import embedding_cost
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM
from magicbert.bert.rehearsal import NO_MEMORY
from magicbert.bert.teacher import Teacher
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import CompressConfig, PretrainConfig, RetrainConfig
from magicbert.errors import UserError
from magicbert.stages.compress_supernet import open_teacher
from magicbert.stages.plan_facts import Rows
from magicbert.stages.run_teacher import open_run_teacher

HEAD_SIZE = 64


def planned_teacher(config: CompressConfig, options: PlanSection, rows: Rows) -> Teacher:
    """Returns the teacher of a compression without memory.

    Raises:
        UserError: it is not there, and its sizes are not given.
    """
    return without_memory("teacher", config.teacher, lambda: open_teacher(config), options, rows)


def planned_distiller(
    config: PretrainConfig | RetrainConfig, options: PlanSection, rows: Rows
) -> Teacher | None:
    """Returns the teacher beside the labels without memory; ``None`` where there is none.

    Raises:
        UserError: it is not there, and its sizes are not given; or they are given for nothing.
    """
    given = config.distillation.teacher if isinstance(config, RetrainConfig) else ""
    if given:
        return without_memory(
            "distillation.teacher", given, lambda: open_run_teacher(given, config.run), options,
            rows,
        )  # fmt: skip
    if options.teacher_layers:
        raise UserError(
            f"plan.teacher_layers: {options.teacher_layers}, but nothing has a teacher here; "
            "distillation.teacher of a retraining names one, which need not be there yet"
        )
    return None


def without_memory(
    option: str, given: str, load: Callable[[], Teacher], options: PlanSection, rows: Rows
) -> Teacher:
    """Returns a teacher without memory: of its folder, or of the sizes that are given.

    Args:
        option: that names its folder.
        given: the folder.
        load: loads it.
        options: may give sizes.
        rows: sizes of a row.

    Raises:
        UserError: there is neither.
    """
    if options.teacher_layers:
        return Teacher(sized_teacher(options, rows))
    if not given or not Path(given).exists():
        where = f"{given} is not there" if given else "is not given"
        raise UserError(
            f"{option}: {where}; plan without it by --plan.teacher_layers NUMBER "
            "--plan.teacher_width NUMBER"
        )
    config = copy.deepcopy(load().config)
    # Left to be chosen, kernels would be chosen, and named, for a device that runs nothing.
    config.backend = "torch"
    return Teacher(built(config))


def sized_teacher(options: PlanSection, rows: Rows) -> MagicBertForMaskedLM:
    """Returns an encoder of attention and feed-forward layers on tensors without memory.

    Raises:
        UserError: the width is not made of heads.
    """
    heads, rest = divmod(options.teacher_width, HEAD_SIZE)
    if rest:
        raise UserError(
            f"plan.teacher_width: {options.teacher_width} is not made of heads of {HEAD_SIZE}"
        )
    config = MagicBertConfig(
        architecture="-".join((f"mha{heads}", "ffn") * options.teacher_layers),
        vocab_size=rows.vocab_size,
        hidden_size=options.teacher_width,
        max_position_embeddings=rows.length,
        backend="torch",
    )
    return built(config)


def built(config: MagicBertConfig) -> MagicBertForMaskedLM:
    """Returns a model on tensors without memory."""
    with NO_MEMORY:
        return MagicBertForMaskedLM(config)


def encoder_flops(teacher: Teacher, length: int, num_layers: int) -> float:
    """Returns the FLOPs of one row through a teacher's embeddings and some of its layers."""
    layers = teacher.model.model.encoder.layers[:num_layers]
    own = sum(float(layer.flops(length)) for layer in layers)
    return embedding_cost(teacher.config, length).flops + own
