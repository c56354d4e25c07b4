"""The teacher that plans of compression need, without memory."""

from __future__ import annotations

from pathlib import Path

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM
from magicbert.bert.rehearsal import NO_MEMORY
from magicbert.bert.teacher import Teacher
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import CompressConfig
from magicbert.errors import UserError
from magicbert.stages.compress_supernet import open_teacher
from magicbert.stages.plan_facts import Rows

HEAD_SIZE = 64


def planned_teacher(config: CompressConfig, options: PlanSection, rows: Rows) -> Teacher:
    """Returns the teacher without memory: of its folder, or of the sizes that are given.

    Raises:
        UserError: there is neither.
    """
    if options.teacher_layers:
        return Teacher(sized_teacher(options, rows))
    if not config.teacher or not Path(config.teacher).exists():
        where = f"{config.teacher} is not there" if config.teacher else "is not given"
        raise UserError(
            f"teacher: {where}; plan without it by --plan.teacher_layers NUMBER "
            "--plan.teacher_width NUMBER"
        )
    return open_teacher(config).to(NO_MEMORY)


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
    with NO_MEMORY:
        return MagicBertForMaskedLM(config)
