"""report: reads a run's records and writes ``report.html`` and the numbers behind its plots."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.saving import RECORD, SCHEMA
from magicbert.bert.spaces import resolve_space
from magicbert.config.roots import ReportConfig
from magicbert.config.sections import SamplerAnalysisSection
from magicbert.errors import UserError
from magicbert.records import read_record
from magicbert.report.page import build_page
from magicbert.report.reading import RunRecords, read_run, winner
from magicbert.space.architecture import Architecture
from magicbert.space.cost import CostModel
from magicbert.stages.analyze_sampler import DISTANCES, examine
from magicbert.stages.trained_supernet import read_pretrain_config
from magicbert.supernet.coverage import Coverage, walk_again
from magicbert.supernet.sampling import build_sampler
from magicbert.trail import run_folder

LOGGER = logging.getLogger("magicbert")
SETTING = SamplerAnalysisSection(num_walkers=50)


def run(config: ReportConfig) -> None:
    """Draws the page; stages that have not run are named as such.

    Raises:
        UserError: there is no such run, or a record is damaged.
    """
    folder = run_folder(config.run)
    records = read_run(folder)
    page = build_page(
        records,
        title=config.title,
        costs=cost_model(folder, records),
        coverage=coverages(folder, records),
        sampler=sampler_analysis(folder, records),
    )
    page.write(folder / "report.html", folder / "report")
    LOGGER.info("report: %s", folder / "report.html")


def coverages(folder: Path, records: RunRecords) -> dict[str, Coverage]:
    """Returns what each pretraining trained how often, by the name of its folder."""
    found = {}
    for record in records.finished("pretrain"):
        config = read_pretrain_config(folder / record.folder_name)
        space = resolve_space(config.space, config.model.hidden_size)
        sampler = build_sampler(config.sampling, space, config.training.seed)
        steps = (record.result or {})["steps"]
        found[record.folder_name] = walk_again(sampler, space, steps)
    return found


def sampler_analysis(folder: Path, records: RunRecords) -> Mapping[str, Any] | None:
    """Returns how fast the walks of the run's MAGIC-T pretrainings mix, where nobody asked before.

    ``None`` after ``analyze sampler``, whose own result is shown, and where nothing walks.
    """
    analyses = [record.result or {} for record in records.finished("analyze")]
    if any(result["target"] == "sampler" for result in analyses):
        return None
    walks = []
    for record in records.finished("pretrain"):
        config = read_pretrain_config(folder / record.folder_name)
        space = resolve_space(config.space, config.model.hidden_size)
        if config.sampling.method != "magic-t" or space.count() == 1:
            continue
        try:
            walks.append(examine(record.folder_name, space, config.sampling.num_changes, SETTING))
        except UserError as error:  # too many kinds of layers to lump
            LOGGER.info("report: the walk of %s is left out: %s", record.folder_name, error)
    return {"target": "sampler", "distances": DISTANCES, "walks": walks} if walks else None


def cost_model(folder: Path, records: RunRecords) -> CostModel | None:
    """Returns the cost of the winner's operators, or ``None`` before a search.

    The sizes of the encoder stand in the record of the supernet it was found in.
    """
    best = winner(records)
    supernets = sorted(folder.glob(f"pretrain*/supernet/{RECORD}"))
    if best is None or not supernets or not records.finished("prepare"):
        return None
    sizes: dict[str, Any] = read_record(supernets[0], SCHEMA)["config"]
    operators = Architecture.parse(best["architecture"])
    manifest = records.finished("prepare")[0].result or {}
    encoder = MagicBertConfig(architecture=str(operators), **sizes)
    return bert_cost_model(encoder, operators, manifest["length"])
