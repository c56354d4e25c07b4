"""Starts ranks by forking a process that has everything imported: a trial costs a second, not ten.

A server process imports torch, DeepSpeed and the program once and forks the ranks of every trial,
each in a session of its own, before any thread or process group is there. Trials may run at the
same time. All of them end with the server, and the server ends with the process that started it.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from ranks import free_port, rank_environment

PRELOADED = (
    "torch.distributed",
    "deepspeed",
    "safetensors.torch",
    "magicbert.training.run",
    "magicbert.training.starting.environment",
    "torch.utils.tensorboard.writer",
    # What DeepSpeed imports only when an engine is built, most of a start.
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "deepspeed.runtime.zero.muon.original_muon",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "deepspeed.runtime.zero.stage3",
    "deepspeed.ops.op_builder.all_ops",
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.moe.ep_router",
    "torch.utils.cpp_extension",
    "torch.profiler._cupti_monitor",
)
START_SECONDS = 120.0
LONGEST_LOG = 40_000
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass
class Trial:
    """The ranks of one trial.

    Attributes:
        server: who forked them.
        pids: process of each rank.
        folder: each rank writes ``rank-N.log`` and ``rank-N.json`` (what its function returned).
    """

    server: RankServer
    pids: list[int]
    folder: Path

    def kill(self) -> None:
        """Ends every rank at once, as ``kill -9`` does."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def codes(self) -> list[int | None]:
        """Returns the exit codes so far; minus a signal's number, ``None`` = still there."""
        reply: list[int | None] = self.server.ask("codes", pids=self.pids)
        return reply

    def wait(self, timeout: float) -> list[int]:
        """Waits for the end of all ranks; kills them after ``timeout`` seconds and raises."""
        deadline = time.monotonic() + timeout
        while True:
            codes = [code for code in self.codes() if code is not None]
            if len(codes) == len(self.pids):
                return codes
            if time.monotonic() >= deadline:
                self.kill()
                raise TimeoutError(f"no end after {timeout} s: {self.codes()}\n{self.log()}")
            time.sleep(0.01)

    def results(self, timeout: float = 120) -> list[Any]:
        """Waits and returns what each rank's function returned; all must have ended well."""
        codes = self.wait(timeout)
        assert not any(codes), f"exit codes {codes}\n{self.log()}"
        ranks = range(len(self.pids))
        return [json.loads((self.folder / f"rank-{rank}.json").read_text()) for rank in ranks]

    def log(self, rank: int | None = None) -> str:
        """Returns what one rank, or every rank, has printed; nothing yet right after its fork."""
        ranks = range(len(self.pids)) if rank is None else [rank]
        files = [self.folder / f"rank-{number}.log" for number in ranks]
        written = (file.read_text(errors="replace") for file in files if file.is_file())
        return "\n".join(text[-LONGEST_LOG:] for text in written)


class RankServer:
    """The process that forks ranks; use as a context manager.

    Args:
        modules: what it imports besides the program: the modules of the targets.
    """

    def __init__(self, *modules: str) -> None:
        command = [sys.executable, __file__, *PRELOADED, *modules]
        environment = rank_environment(0, 1, 0)
        environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
        self._process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.ask("ready")

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Sends one request and returns the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the server of ranks has died"
        return json.loads(line)

    def start(
        self,
        target: str,
        num_ranks: int,
        folder: Path,
        arguments: Any = None,
        *,
        faults: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Trial:
        """Forks ranks that call ``module:function(rank, num_ranks, folder, arguments)``.

        Args:
            target: the function.
            num_ranks: processes.
            folder: of the trial.
            arguments: JSON data for the function.
            faults: rules of ``MAGICBERT_FAULT``; firings are listed in ``folder/faults.log``.
            environment: more variables.
        """
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        variables = {
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_SIZE": str(num_ranks),
            "MAGICBERT_FAULT": faults,
            "MAGICBERT_FAULT_LOG": str(folder / "faults.log"),
            **(environment or {}),
        }
        pids = self.ask(
            "start", target=target, num_ranks=num_ranks, folder=str(folder),
            arguments=arguments, variables=variables,
        )  # fmt: skip
        return Trial(self, pids, folder)

    def close(self) -> None:
        """Ends the server and whatever still runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def __enter__(self) -> RankServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@cache
def rank_server() -> RankServer:
    """Returns the one server that all rows of this process share; it ends with the process."""
    server = RankServer("loop_worker", "saving_worker", "training_worker", "toy_rank")
    atexit.register(server.close)
    return server


def num_firings(folder: Path) -> int:
    """Returns how many faults fired in a trial."""
    file = folder / "faults.log"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def serve(modules: Sequence[str]) -> None:
    """Imports, then answers requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    for module in modules:
        importlib.import_module(module)
    codes: dict[int, int | None] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = True
        if request["verb"] == "start":
            answer = [fork_rank(rank, request) for rank in range(request["num_ranks"])]
            codes |= dict.fromkeys(answer)
        elif request["verb"] == "codes":
            reap(codes)
            answer = [codes[pid] for pid in request["pids"]]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def reap(codes: dict[int, int | None]) -> None:
    """Notes the exit code of every child that has ended."""
    for pid in [pid for pid, code in codes.items() if code is None]:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            codes[pid] = os.waitstatus_to_exitcode(status)


def fork_rank(rank: int, request: dict[str, Any]) -> int:
    """Forks one rank; returns its process."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        become_rank(rank, request)
        module, function = request["target"].split(":")
        work = getattr(importlib.import_module(module), function)
        folder = Path(request["folder"])
        result = work(rank, request["num_ranks"], folder, request["arguments"])
        (folder / f"rank-{rank}.json").write_text(json.dumps(result))
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def become_rank(rank: int, request: dict[str, Any]) -> None:
    """Gives a forked process a session, a log and the environment of its rank."""
    from magicbert import faults

    os.setsid()
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    log = os.open(f"{request['folder']}/rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["variables"], RANK=str(rank), LOCAL_RANK=str(rank))
    text = os.environ[faults.VARIABLE]
    faults.RULES[:] = [faults.Rule.parse(rule) for rule in text.split(";") if rule.strip()]


if __name__ == "__main__":
    serve(sys.argv[1:])
