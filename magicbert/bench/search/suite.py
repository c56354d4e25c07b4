"""All cases of ``bench search``."""

from __future__ import annotations

import dataclasses

from magicbert.bench.search.sizes import CASES
from magicbert.bench.search.trial import search_case
from magicbert.bench.suite import Suite, chosen_device
from magicbert.config.roots import BenchConfig
from magicbert.errors import UserError

# A turn takes seconds.
ROUNDS = {"cuda": 7, "cpu": 3}


def search_suite(config: BenchConfig) -> Suite:
    """Returns the cases that the configuration asks for.

    Raises:
        UserError: it asks for what is not there.
    """
    device = chosen_device(config.measure.device)
    setting = config.search
    asked = setting.cases or tuple(CASES)
    if unknown := [name for name in asked if name not in CASES]:
        raise UserError(f"search.cases: {unknown[0]!r} is not one of {', '.join(CASES)}")
    is_whole = setting.whole or device.type == "cuda"
    cases = [search_case(CASES[name], config.measure.seed, is_whole=is_whole) for name in asked]
    rounds = config.measure.rounds or ROUNDS[device.type]
    pace = dataclasses.replace(config.measure, rounds=rounds)
    return Suite("search", cases, device, pace, {"seed": pace.seed, "whole": is_whole})
