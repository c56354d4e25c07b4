"""Runs one function in several real processes joined by gloo, as the deepspeed launcher would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rank_environment(rank: int, num_ranks: int, port: int) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "kernels"), str(TESTS), str(TESTS / "distributed")]
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", "")]),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_SIZE": str(num_ranks),
    }


def run_ranks(
    target: str, num_ranks: int, folder: Path, arguments: Any = None, timeout: float = 300
) -> list[Any]:
    """Calls ``module:function(rank, num_ranks, folder, arguments)`` in every process.

    Returns what each rank's function returned (JSON data), first rank first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, str(TESTS / "ranks.py"), target, str(folder), json.dumps(arguments)]
    processes = [
        subprocess.Popen(
            command, env=rank_environment(rank, num_ranks, port), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in range(num_ranks)
    ]  # fmt: skip
    outputs = []
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
        remove_shared_buffers(port)
    for rank, process in enumerate(processes):
        assert process.returncode == 0, f"rank {rank} failed:\n{outputs[rank][-6000:]}"
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(num_ranks)]


def remove_shared_buffers(port: int) -> None:
    """Frees the shared memory that DeepSpeed leaves behind: 69 MB for every rank of every start."""
    for buffer in Path("/dev/shm").glob(f"deepspeed_allreduce_buffer_*_{port}_*"):
        buffer.unlink(missing_ok=True)


def main() -> None:
    target, folder, arguments = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    module, function = target.split(":")
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    result = getattr(__import__(module), function)(rank, num_ranks, folder, arguments)
    (folder / f"rank-{rank}.json").write_text(json.dumps(result))
    # Imported here: the paths stand in the environment of these processes alone.
    from magicbert.leaving import leave_if_joined

    leave_if_joined(0)


if __name__ == "__main__":
    main()
