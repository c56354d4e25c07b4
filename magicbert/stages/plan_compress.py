"""``compress --plan``: which of the two targets is planned."""

from __future__ import annotations

import json

from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import CompressConfig
from magicbert.planning.blocks import BlocksPlan, SelectPlan
from magicbert.stages.plan_blocks import BlocksPlanner
from magicbert.stages.plan_select import SelectPlanner


def run(verb: str, config: CompressConfig, options: PlanSection) -> None:
    """Prints the plan of a target.

    Raises:
        UserError: neither data nor sizes, or no teacher and no sizes of one, or they do not fit.
    """
    plan = plan_of(config, options)
    print(json.dumps(plan.as_json(), indent=2) if options.format == "json" else plan.as_text())


def plan_of(config: CompressConfig, options: PlanSection) -> BlocksPlan | SelectPlan:
    """Returns the plan of a target."""
    if config.target == "supernet":
        return BlocksPlanner(config, options).plan()
    return SelectPlanner(config, options).plan()
