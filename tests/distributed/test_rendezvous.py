"""Ranks of a single host cannot be reached from outside."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ranks import run_ranks

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def test_ranks_of_one_host_listen_on_loopback_alone(tmp_path: Path) -> None:
    found = run_ranks("rendezvous_worker:listens", 2, tmp_path)
    assert all(found), "every rank takes connections of the others"
    outside = [address for addresses in found for address in addresses if address[:4] != "127."]
    assert not outside
