"""Named points at which a test can make this process fail; in normal use they do nothing.

The variable ``MAGICBERT_FAULT`` holds rules separated by ``;``, each of them ``point=action`` with
conditions after ``@``::

    save.rename.before=kill@rank:0,step:4
    save.shard.write=ENOSPC@rank:1;loop.step=sleep:6@step:3
    save.fsync=kill@hit:7

A rule fires once, when all its conditions hold; ``hit`` counts the calls that satisfy the others,
from 1. Every firing is one line in the file that ``MAGICBERT_FAULT_LOG`` names, so that a test can
prove that its fault took place.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass, field

VARIABLE, LOG_VARIABLE = "MAGICBERT_FAULT", "MAGICBERT_FAULT_LOG"


class InjectedError(RuntimeError):
    """What the action ``raise`` raises."""


@dataclass
class Rule:
    """One fault to come.

    Attributes:
        point: where it strikes.
        action: ``kill``, ``freeze``, ``abort``, ``raise``, ``exit:CODE``, ``sleep:SECONDS``, or the
            name of an errno such as ``ENOSPC``.
        conditions: values that the caller's keywords must have.
        hit: which of the matching calls it strikes.
        num_hits: matching calls so far.
    """

    point: str
    action: str
    conditions: dict[str, int] = field(default_factory=dict)
    hit: int = 1
    num_hits: int = 0

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Reads ``point=action[@name:value,...]``."""
        point, _, rest = text.partition("=")
        action, _, tail = rest.partition("@")
        pairs = [pair.split(":") for pair in tail.split(",") if pair]
        conditions = {name.strip(): int(value) for name, value in pairs}
        hit = conditions.pop("hit", 1)
        return cls(point.strip(), action.strip(), conditions, hit)

    def is_due(self, point: str, where: dict[str, int]) -> bool:
        """Counts a call and says whether the rule strikes it."""
        if point != self.point:
            return False
        if any(where.get(name) != value for name, value in self.conditions.items()):
            return False
        self.num_hits += 1
        return self.num_hits == self.hit


RULES = [Rule.parse(text) for text in os.environ.get(VARIABLE, "").split(";") if text.strip()]


def fault(point: str, **where: int) -> None:
    """Fails here if a rule says so.

    Args:
        point: dotted name of the place, such as ``save.rename.before``.
        **where: what conditions may ask for; ``rank`` is added from the environment.

    Raises:
        OSError: the action is the name of an errno.
        InjectedError: the action is ``raise``.
    """
    if not RULES:
        return
    where.setdefault("rank", int(os.environ.get("RANK", "0")))
    for rule in RULES:
        if rule.is_due(point, where):
            write_down(rule, where)
            act(rule.action)


def write_down(rule: Rule, where: dict[str, int]) -> None:
    """Appends the firing to the log, on disk before anything else happens."""
    path = os.environ.get(LOG_VARIABLE)
    if not path:
        return
    facts = " ".join(f"{name}={value}" for name, value in sorted(where.items()))
    with open(path, "a") as log:
        log.write(f"{rule.point} {rule.action} pid={os.getpid()} {facts}\n")
        log.flush()
        os.fsync(log.fileno())


def act(action: str) -> None:
    """Does what a rule asks for."""
    name, _, argument = action.partition(":")
    if name in errno.errorcode.values():
        code = getattr(errno, name)
        raise OSError(code, f"{os.strerror(code)} (injected)")
    match name:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "abort":
            os.abort()
        case "raise":
            raise InjectedError("injected")
        case "exit":
            os._exit(int(argument))
        case "sleep":
            time.sleep(float(argument))
        case _:
            raise ValueError(f"{VARIABLE}: unknown action {action!r}")
