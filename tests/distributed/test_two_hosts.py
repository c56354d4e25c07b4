"""Two hosts of one rank each against one host of two: the real launcher, a real network between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from host_launching import start_everywhere
from hosts import two_hosts, why_no_hosts
from ranks import TESTS, run_ranks

pytestmark = pytest.mark.distributed
STAGES = [1, 3]
TIMEOUT = 240


def test_two_hosts_train_what_one_host_trains(tmp_path: Path) -> None:
    reason = why_no_hosts()
    if reason:
        pytest.skip(reason)
    apart, together = tmp_path / "apart", tmp_path / "together"
    apart.mkdir()
    target = ["two_hosts_worker:trains", str(apart), json.dumps(STAGES)]
    with two_hosts() as hosts:
        words = ["--no_local_rank", str(TESTS / "ranks.py"), *target]
        launched = start_everywhere(hosts, apart, words)
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in launched]
        num_bytes = [host.bytes_sent() for host in hosts]
    assert [process.returncode for process in launched] == [0, 0], "\n".join(outputs)[-6000:]
    found = [json.loads((apart / f"rank-{rank}.json").read_text()) for rank in range(2)]
    expected = run_ranks("two_hosts_worker:trains", 2, together, STAGES)
    assert found == expected, "losses, norms and weights of every step"
    for ending, _, steps in found[0].values():
        assert ending == "finished"
        assert len([row for row in steps if row["kind"] == "train"]) > 10
    # More than meeting and leaving takes: the gradients went over the wire, both ways.
    assert min(num_bytes) > 200_000
