"""Rows A4 and B5: stages that are killed and started again give what an uninterrupted one gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from exported_run import write_run
from forked_ranks import rank_server
from matrix import Finding, mutant, row
from saving_trials import Saving, is_good, recovers
from stage_runs import KILLED, StageRun, files_of, write_base

from magicbert.bert.exported import verify_export
from magicbert.errors import UserError

MOST_POINTS = 100
RETENTION = ("save.retention.before", "save.retention.after")
# Where each stage is killed; None = at every call until it ends by itself.
POINTS: dict[str, tuple[str, Sequence[int] | None]] = {
    "prepare": ("prepare.shard", None),
    "search": ("search.score", (1, 4, 9, 13)),
    "retrain": ("loop.step", (2, 6, 11)),
    "finetune": ("finetune.cell", None),
}
FEW = {"prepare": (2,), "search": (5,), "retrain": (6,), "finetune": (4,)}


def killed_and_resumed(
    base: Path, folder: Path, verb: str, hits: Sequence[int] | None
) -> tuple[int, int]:
    """Kills a stage at each of its points; returns the points and those with the same result."""
    expected = StageRun(base, folder / "whole", verb).finish()
    tried = same = 0
    for hit in hits or range(1, MOST_POINTS):
        run = StageRun(base, folder / f"hit-{hit}", verb)
        if not run.kill_at(POINTS[verb][0], hit):
            break
        # Killed once more on its way, where it gets so far.
        run.kill_at(POINTS[verb][0], 1)
        tried, same = tried + 1, same + (run.finish() == expected)
    return tried, same


def exports_survive(folder: Path, most: int, mutant: str = "") -> tuple[int, int]:
    """Kills exports at every file they write, first and repeated ones; returns tried, good."""
    write_run(folder / "base" / "runs", "tiny")
    tried = good = 0
    for is_repeated in (False, True):
        for hit in range(1, most):
            run = StageRun(folder / "base", folder / f"{is_repeated}-{hit}", "export", mutant)
            if is_repeated:
                run.start().results()
            if not run.kill_at("export.write", hit):
                break
            survives = is_whole_export(run.run / "export", may_be_absent=not is_repeated)
            has_ended = run.start().wait(60) == [0]
            names = [path.name for path in run.run.glob("*export*")]
            names += [path.name for path in run.run.glob(".*export*.*")]
            is_alone = has_ended and names == ["export"]
            converges = is_alone and is_whole_export(run.run / "export")
            tried, good = tried + 1, good + (survives and converges)
    return tried, good


def is_whole_export(folder: Path, *, may_be_absent: bool = False) -> bool:
    """Whether an export is as its manifest says."""
    if may_be_absent and not folder.exists():
        return True
    try:
        verify_export(folder)
    except UserError:
        return False
    return True


def loads_change_nothing(folder: Path) -> tuple[int, int]:
    """Kills the load of a two-rank checkpoint on one rank; returns tried and good."""
    root, trial = Saving(folder).start("saved")
    trial.results()
    before = files_of(root)
    work, where = "saving_worker:load_newest", {"root": str(root)}
    killed = rank_server().start(
        work, 1, folder / "killed", where, faults="load.verify=kill@rank:0"
    )
    codes = killed.wait(60)
    again = rank_server().start(work, 1, folder / "again", where).results()
    return 1, int(codes == [KILLED] and again == [4] and files_of(root) == before)


@row(
    "A4",
    fault="kill -9 in retention, in a load by another number of ranks, in export, in tokenisation",
    expected="what stood there before is whole; the same command again gives the same result",
    tier="N",
)
def killed_at_work(folder: Path, is_thorough: bool) -> Finding:
    most = MOST_POINTS if is_thorough else 2
    saving = Saving(folder / "retention")
    retained = 0
    for point in RETENTION:
        root, has_fired = saving.kill_at_point(0, point)
        retained += has_fired and is_good(root) and recovers(root, folder / f"again-{point}")
    base = write_base(folder / "prepare-base")
    points = POINTS["prepare"][1] if is_thorough else FEW["prepare"]
    counts = {
        "retention": (len(RETENTION), retained),
        "load": loads_change_nothing(folder / "load"),
        "export": exports_survive(folder / "export", most),
        "tokenisation": killed_and_resumed(base, folder / "prepare", "prepare", points),
    }
    tried, good = (sum(count[part] for count in counts.values()) for part in (0, 1))
    figure = ", ".join(f"{name} {count[1]} of {count[0]}" for name, count in counts.items())
    return Finding(tried == good, figure, tried)


@mutant("A4", "an export is written into its own place")
def export_in_place(folder: Path, is_thorough: bool) -> Finding:
    tried, good = exports_survive(folder, 3, mutant="in place")
    return Finding(tried == good, f"{good} of {tried}", tried)


@row(
    "B5",
    fault="kill -9 in prepare, search, retrain and finetune; the same command again, killed again",
    expected="rows, scores, winner, weights and metrics as of an uninterrupted run",
    tier="N",
)
def stages_resume(folder: Path, is_thorough: bool) -> Finding:
    base, shown, total = write_base(folder / "base"), [], [0, 0]
    for verb, (_, hits) in POINTS.items():
        points = hits if is_thorough else FEW[verb]
        tried, same = killed_and_resumed(base, folder / verb, verb, points)
        shown.append(f"{verb} {same} of {tried}")
        total = [total[0] + tried, total[1] + same]
    return Finding(total[0] == total[1], ", ".join(shown), total[0])


@mutant("B5", "a resumed search reads its scores with fewer digits")
def rounded_scores(folder: Path, is_thorough: bool) -> Finding:
    base = write_base(folder / "base")
    expected = StageRun(base, folder / "whole", "search").finish()
    run = StageRun(base, folder / "cut", "search")
    has_fired = run.kill_at("search.score", 9)
    file = run.run / "search" / "scores.jsonl"
    text = re.sub(r'("loss_sum": \d+\.\d)\d*', r"\1", file.read_text())
    file.write_text(text)
    return Finding(run.finish() == expected, "", int(has_fired))
