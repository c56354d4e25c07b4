"""One match: a contender and the plain model take turns on the same ranks, a few steps each."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import torch
from torch import Tensor

from magicbert.bench.clock import CLOCKS, PHASES
from magicbert.bench.engine.contenders import Aligned, Contender, PathSparse, build_peer
from magicbert.bench.engine.matches import ALIGNED, MAGICBERT, PLAIN, Match
from magicbert.bench.engine.tenant import VOCAB_SIZE, PlainModel, bench_space
from magicbert.bench.ratios import median_of, paired_ratio
from magicbert.config.sections import EngineBenchSection
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.sampling import UniformSampler
from magicbert.training.ranks import Ranks

NUM_WARM_STEPS = 2
# Milliseconds by clock, phase, round and step.
Times: TypeAlias = dict[str, dict[str, list[list[float]]]]


def play(match: Match, setting: EngineBenchSection, ranks: Ranks) -> dict[str, Any]:
    """Measures one match; every rank returns the row of the record."""
    start, load = time.perf_counter(), os.getloadavg()[0]
    torch.manual_seed(setting.seed)
    space = bench_space(setting, match.candidates)
    contenders = build_contenders(match, setting, space, ranks)
    own = take_turns(contenders, setting, space, ranks, match)
    counted = count(contenders[match.contender], setting, space, ranks)
    for contender in contenders.values():
        contender.close()
    times = {
        name: average_over_ranks([part[name] for part in ranks.gather(own)]) for name in contenders
    }
    del contenders
    gc.collect()
    return row_of(match, times) | {
        "counted": counted,
        "rounds": length_of(match, setting)[0],
        "load_average": [round(load, 1), round(os.getloadavg()[0], 1)],
        "seconds": round(time.perf_counter() - start, 1),
    }


def build_contenders(
    match: Match, setting: EngineBenchSection, space: SearchSpace, ranks: Ranks
) -> dict[str, Contender]:
    """Builds who takes part, by name; the plain model always does."""
    plain = build_peer(PLAIN, setting, 1, match.stage, torch.device("cpu"))
    if match.contender != MAGICBERT:
        name = match.contender
        peer = build_peer(name, setting, match.candidates, match.stage, plain.device)
        return {name: peer, PLAIN: plain}
    engine = PathSparse(setting, match.candidates, match.stage, ranks.num_ranks)
    anchor = UniformSampler(space, setting.seed + 1).next(0, None)
    return {MAGICBERT: engine, ALIGNED: Aligned(engine, anchor), PLAIN: plain}


def length_of(match: Match, setting: EngineBenchSection) -> tuple[int, int]:
    """Returns rounds and timed steps of a turn; peers need few, they are far off and slow."""
    if match.contender == MAGICBERT:
        return setting.rounds, setting.steps
    return setting.peer_rounds, 1


def take_turns(
    contenders: Mapping[str, Contender],
    setting: EngineBenchSection,
    space: SearchSpace,
    ranks: Ranks,
    match: Match,
) -> dict[str, Times]:
    """Lets every contender make a few steps in each round; returns this rank's times.

    The first step of a turn is not timed: it finds the caches full of somebody else's weights.
    """
    feed = Feed(space, setting, ranks)
    for contender in contenders.values():
        warm_up(contender, space, feed)
    # The models stay; a collection that walks over them would strike one contender or another.
    gc.collect()
    gc.freeze()
    found: dict[str, Times] = {name: {} for name in contenders}
    names = list(contenders)
    num_rounds, num_steps = length_of(match, setting)
    for number in range(num_rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            ranks.barrier()
            steps = [contenders[name].timed_step(*feed.next()) for _ in range(num_steps + 1)]
            add_round(found[name], steps[1:])
    gc.unfreeze()
    return found


def count(
    contender: Contender, setting: EngineBenchSection, space: SearchSpace, ranks: Ranks
) -> dict[str, Any]:
    """Counts the bytes of one more step, on a path whose moments exist, as the mean over ranks.

    Returns:
        The parameters that a path trains, the bytes that the step phase touches for each of them,
        and the messages of the whole step with the bytes that one rank puts into them.
    """
    feed = Feed(space, setting, ranks)
    path = Architecture((space.layers[0][-1],) * space.num_layers)
    phases = contender.counted_step(feed.tokens(), path)
    parameters = sum(p.numel() for p in PlainModel(setting).parameters())
    touched = ranks.sum([phases["step"]["bytes_touched"]])[0] / ranks.num_ranks
    messages = [part["collectives"] for part in phases.values()]
    sent = [part["collective_bytes"] for part in phases.values()]
    return {
        "parameters_of_path": parameters,
        "step_bytes_per_parameter": round(touched / parameters, 2),
        "messages": sum(sum(part.values()) for part in messages),
        "message_bytes_per_parameter": round(sum(sum(p.values()) for p in sent) / parameters, 2),
    }


class Feed:
    """Tokens of this rank and the path of all ranks, step by step.

    Args:
        space: where paths are drawn.
        setting: sizes and seed.
        ranks: all ranks.
    """

    def __init__(self, space: SearchSpace, setting: EngineBenchSection, ranks: Ranks) -> None:
        self.sampler = UniformSampler(space, setting.seed)
        self.shape = (setting.rows, setting.length)
        self.generator = torch.Generator().manual_seed(setting.seed + ranks.rank)
        self.step = 0

    def tokens(self) -> Tensor:
        """Returns ``[rows, length]`` random tokens."""
        return torch.randint(0, VOCAB_SIZE, self.shape, generator=self.generator)

    def next(self) -> tuple[Tensor, Architecture]:
        """Returns tokens and path of the next step."""
        self.step += 1
        return self.tokens(), self.sampler.next(self.step, None)


def warm_up(contender: Contender, space: SearchSpace, feed: Feed) -> None:
    """Makes the first steps, which allocate what later ones find."""
    if contender.is_lazy:
        for name in space.layers[0]:
            path = Architecture((name,) * space.num_layers)
            contender.timed_step(feed.tokens(), path)
    for _ in range(NUM_WARM_STEPS):
        contender.timed_step(*feed.next())


def add_round(times: Times, steps: Sequence[dict[str, dict[str, float]]]) -> None:
    """Adds the steps of one turn as a round."""
    for clock, by_phase in steps[0].items():
        for phase in by_phase:
            rounds = times.setdefault(clock, {}).setdefault(phase, [])
            rounds.append([step[clock][phase] for step in steps])


def average_over_ranks(parts: Sequence[Times]) -> Times:
    """Returns the mean over ranks of every step: what the whole machine spent on it."""

    def mean(clock: str, phase: str) -> list[list[float]]:
        by_rank = [part[clock][phase] for part in parts]
        return [
            [sum(values) / len(parts) for values in zip(*steps, strict=True)]
            for steps in zip(*by_rank, strict=True)
        ]

    first = parts[0]
    return {clock: {phase: mean(clock, phase) for phase in first[clock]} for clock in first}


def row_of(match: Match, times: Mapping[str, Times]) -> dict[str, Any]:
    """Returns medians in ms of everyone, and the contender's ratios to the plain model."""
    plain = times[PLAIN]
    medians = {
        name: {
            clock: {phase: round(median_of(rounds), 3) for phase, rounds in own[clock].items()}
            for clock in CLOCKS
        }
        for name, own in times.items()
    }
    ratios: dict[str, Any] = {}
    for name in times:
        if name == PLAIN:
            continue
        ratios[name] = {
            clock: {
                phase: {
                    end: round(value, 4)
                    for end, value in asdict(
                        paired_ratio(times[name][clock][phase], plain[clock][phase])
                    ).items()
                }
                for phase in PHASES
            }
            for clock in CLOCKS
        }
    return {**asdict(match), "milliseconds": medians, "ratio_to_plain": ratios}
