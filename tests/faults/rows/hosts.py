"""D6 and D7 between hosts: a host that is cut off, a bad network, a host that never comes."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from forked_ranks import Trial, rank_server
from hosts import Host, distant_hosts, two_hosts, why_no_hosts
from matrix import Finding, mutant, row

from magicbert.trail import read_metrics
from magicbert.training.watching.exit_codes import EXIT_HUNG, EXIT_LOST_RANK

LIMIT_SECONDS, GRACE_SECONDS = 4.0, 10.0
FLAP_SECONDS, LONG_LIMIT_SECONDS = 2.0, 60.0
DELAY_SECONDS, LOSS = 0.02, 0.1
NUM_STEPS, ENDLESS = 20, 10**6
ENDED_BY_LIMIT = {EXIT_HUNG, EXIT_LOST_RANK}


def start(
    folder: Path,
    hosts: tuple[Host, Host],
    *,
    num_steps: int = NUM_STEPS,
    limit: float = LIMIT_SECONDS,
    **more: Any,
) -> Trial:
    """Starts one rank per host; ``limit`` is that of a step and of meeting, in seconds."""
    minutes = limit / 60
    config = {
        "training": {"num_steps": num_steps},
        "launch": {"join_minutes": minutes, "step_minutes": minutes},
    }
    arguments = {"namespaces": [host.namespace for host in hosts], "config": config, **more}
    network = {"MASTER_ADDR": hosts[0].address, "LOCAL_SIZE": "1", **hosts[0].environment()}
    return rank_server().start("host_rank:run", 2, folder, arguments, environment=network)


def wait_for_steps(trial: Trial, count: int, timeout: float = 90) -> None:
    """Waits until so many steps were made."""
    deadline = time.monotonic() + timeout
    while len(steps_of(trial)) < count:
        assert time.monotonic() < deadline, f"no {count} steps:\n{trial.log()}"
        time.sleep(0.05)


def steps_of(trial: Trial) -> list[dict[str, Any]]:
    """Returns what every step logged, without clocks."""
    rows = [row for row in read_metrics(trial.folder / "stage") if row["kind"] == "train"]
    clocks = ("time", "tokens_per_second")
    return [{name: row[name] for name in row if name not in clocks} for row in rows]


def seconds_to_end(trial: Trial, limit: float) -> tuple[float, list[int | None]]:
    """Waits for the ranks; returns how long they took, and their codes as they were then."""
    begin = time.monotonic()
    deadline = begin + limit + GRACE_SECONDS + 1.0
    while None in trial.codes() and time.monotonic() < deadline:
        time.sleep(0.05)
    seconds, codes = time.monotonic() - begin, trial.codes()
    trial.kill()
    with suppress(TimeoutError):
        trial.wait(10)
    return seconds, codes


def is_told(trial: Trial, rank: int, *words: str) -> bool:
    """Whether a rank said in one line what happened, without a traceback."""
    lines = [line for line in trial.log(rank).splitlines() if line.startswith("magicbert: rank")]
    return any(all(word in line for word in words) for line in lines)


# --- D6 ------------------------------------------------------------------------------------


def cut(folder: Path, *, is_unguarded: bool = False) -> tuple[bool, str]:
    """Unplugs a host in the middle of training."""
    with two_hosts() as hosts:
        trial = start(folder, hosts, num_steps=ENDLESS, is_unguarded=is_unguarded)
        wait_for_steps(trial, 5)
        hosts[1].set_link("down")
        seconds, codes = seconds_to_end(trial, LIMIT_SECONDS)
    passed = seconds <= LIMIT_SECONDS + GRACE_SECONDS and set(codes) <= ENDED_BY_LIMIT
    passed = passed and all(is_told(trial, rank) for rank in range(2))
    return passed, f"cut: {seconds:.1f} s at a limit of {LIMIT_SECONDS:.0f} s, codes {codes}"


def undisturbed(folder: Path) -> tuple[list[Any], str]:
    """Trains with nothing in the way; returns the steps and the last line of the first rank."""
    with two_hosts() as hosts:
        trial = start(folder, hosts, limit=LONG_LIMIT_SECONDS)
        trial.wait(120)
    return steps_of(trial), last_line(trial)


def last_line(trial: Trial) -> str:
    """Returns the line that names steps and weights."""
    lines = [line for line in trial.log(0).splitlines() if line.startswith("END finished")]
    return lines[-1] if lines else trial.log()


def flap(folder: Path, limit: float) -> tuple[list[Any], str, float]:
    """Unplugs a host for a moment; returns steps, last line, and seconds."""
    begin = time.monotonic()
    with two_hosts() as hosts:
        trial = start(folder, hosts, limit=limit)
        wait_for_steps(trial, 3)
        hosts[1].set_link("down")
        time.sleep(FLAP_SECONDS)
        hosts[1].set_link("up")
        trial.wait(120)
    return steps_of(trial), last_line(trial), time.monotonic() - begin


def far_away(folder: Path) -> tuple[list[Any], str, int]:
    """Trains over a late and lossy wire; returns steps, last line, and lost packets."""
    with distant_hosts(DELAY_SECONDS, LOSS) as (first, second, lost):
        trial = start(folder, (first, second), limit=LONG_LIMIT_SECONDS)
        trial.wait(200)
    return steps_of(trial), last_line(trial), sum(lost)


@row(
    "D6",
    fault="a host is cut off; its link flaps; the network is late and loses packets",
    expected="both sides end within the limit of a step + 10 s, told why; else the same result",
    tier="N",
)
def host_cut_off(folder: Path, is_thorough: bool) -> Finding:
    reason = why_no_hosts()
    if reason:
        return Finding.skip(reason)
    is_ended, figure = cut(folder / "cut")
    *expected, _ = *undisturbed(folder / "whole"), None
    *flapped, _ = flap(folder / "flap", LONG_LIMIT_SECONDS)
    *distant, lost = far_away(folder / "far")
    is_same = flapped == expected == distant and len(expected[0]) == NUM_STEPS
    figure += f"; after a flap of {FLAP_SECONDS:.0f} s and with {lost} packets lost: "
    figure += "bit-identical" if is_same else "another result"
    return Finding(is_ended and is_same and lost > 0, figure, 2 + lost)


@mutant("D6", "no limit of a step: torch's own half hour")
def waits_for_torch(folder: Path, is_thorough: bool) -> Finding:
    reason = why_no_hosts()
    if reason:
        return Finding.skip(reason)
    passed, figure = cut(folder / "cut", is_unguarded=True)
    return Finding(passed, figure, 1)


# --- D7 ------------------------------------------------------------------------------------


def missing_host(folder: Path, *, is_unguarded: bool = False) -> Finding:
    """Starts the first host alone; the other is there, but nothing runs on it."""
    reason = why_no_hosts()
    if reason:
        return Finding.skip(reason)
    with two_hosts() as hosts:
        trial = start(folder, hosts, is_unguarded=is_unguarded, is_missing=[1])
        seconds, codes = seconds_to_end(trial, LIMIT_SECONDS)
    passed = seconds <= LIMIT_SECONDS + GRACE_SECONDS and codes[0] == EXIT_HUNG
    is_named = is_told(trial, 0, "rank 1 has not joined")
    figure = f"{seconds:.1f} s at a limit of {LIMIT_SECONDS:.0f} s, code {codes[0]}"
    figure += ", rank 1 named" if is_named else ", rank 1 not named"
    return Finding(passed and is_named, figure, 1)


@row(
    "D7h",
    fault="a host of several is missing at the start",
    expected="an error within launch.join_minutes + 10 s that names the missing ranks",
    tier="N",
)
def host_is_missing(folder: Path, is_thorough: bool) -> Finding:
    return missing_host(folder)


@mutant("D7h", "no limit of meeting: torch's own half hour")
def meets_for_ever(folder: Path, is_thorough: bool) -> Finding:
    return missing_host(folder, is_unguarded=True)
