"""All cases of ``bench data``."""

from __future__ import annotations

import os
from collections.abc import Callable

from magicbert.bench.data.corpus import prepared_corpus
from magicbert.bench.data.loading import loader_case
from magicbert.bench.data.masking import masking_case
from magicbert.bench.data.tokenizing import tokenizer_case
from magicbert.bench.data.waiting import waiting_case
from magicbert.bench.registry import Case
from magicbert.bench.suite import Suite, chosen_device
from magicbert.config.roots import BenchConfig
from magicbert.errors import UserError
from magicbert.trail import stage_folder

CORPUS_FOLDER = "embedded"


def data_suite(config: BenchConfig) -> Suite:
    """Returns the cases that the configuration asks for; prepares the corpus they read.

    Raises:
        UserError: it asks for what is not there.
    """
    # Everyone gets one thread; the package would otherwise take all processors.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    device, pace = chosen_device(config.measure.device), config.measure
    folder = stage_folder(config.run, "bench") / CORPUS_FOLDER
    known: dict[str, Callable[[], Case]] = {
        "masking": lambda: masking_case(pace.seed, peers=pace.peers),
        "loader": lambda: loader_case(folder, pace.seed, peers=pace.peers),
        "waiting": lambda: waiting_case(folder, pace.seed, device, peers=pace.peers),
        "tokenizer": lambda: tokenizer_case(folder, peers=pace.peers),
    }
    asked = config.data.cases or tuple(known)
    if unknown := [name for name in asked if name not in known]:
        raise UserError(f"data.cases: {unknown[0]!r} is not one of {', '.join(known)}")
    if set(asked) != {"masking"}:
        prepared_corpus(folder)
    setting = {"seed": pace.seed, "peers": pace.peers}
    return Suite("data", [known[name]() for name in asked], device, pace, setting)
