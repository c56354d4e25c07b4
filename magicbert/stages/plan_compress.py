"""``compress --plan``: the teacher that both targets need, and which of the two is planned."""

from __future__ import annotations

import json
from pathlib import Path

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM
from magicbert.bert.rehearsal import NO_MEMORY
from magicbert.bert.teacher import Teacher
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import CompressConfig
from magicbert.errors import UserError
from magicbert.planning.blocks import BlocksPlan, SelectPlan
from magicbert.stages.compress_supernet import open_teacher
from magicbert.stages.plan_facts import Rows

HEAD_SIZE = 64


def run(verb: str, config: CompressConfig, options: PlanSection) -> None:
    """Prints the plan of a target.

    Raises:
        UserError: neither data nor sizes, or no teacher and no sizes of one, or they do not fit.
    """
    plan = plan_of(config, options)
    print(json.dumps(plan.as_json(), indent=2) if options.format == "json" else plan.as_text())


def plan_of(config: CompressConfig, options: PlanSection) -> BlocksPlan | SelectPlan:
    """Returns the plan of a target."""
    from magicbert.stages.plan_blocks import BlocksPlanner
    from magicbert.stages.plan_select import SelectPlanner

    if config.target == "supernet":
        return BlocksPlanner(config, options).plan()
    return SelectPlanner(config, options).plan()


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
