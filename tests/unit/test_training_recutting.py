"""State that was cut for some ranks comes back whole for any other ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from magicbert.training.checkpoints import Layout, ShardData
from magicbert.training.checkpoints.fields import FormatError
from magicbert.training.checkpoints.layout import GroupLayout
from magicbert.training.checkpoints.recutting import RankState
from magicbert.training.checkpoints.shard import Shard
from magicbert.training.path_sparse.placement import Piece, cut_group

SIZES = {"embed": 37, "inner": 64, "outer": 5, "norm": 1}
PARTS = ("master", "exp_avg", "exp_avg_sq")


def flattened(num_ranks: int, seed: int) -> list[GroupLayout]:
    """ZeRO 1 and 2: one flat group in a shuffled order, padded, in equal windows."""
    names = tuple(SIZES)
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    sizes = [SIZES[names[number]] for number in order]
    offsets = np.cumsum([0, *sizes[:-1]]).tolist()
    length = -(-sum(sizes) // num_ranks)
    return [
        GroupLayout(
            length, names, cut_group(order, sizes, offsets, (rank * length, (rank + 1) * length))
        )
        for rank in range(num_ranks)
    ]


def by_parameter(num_ranks: int) -> list[GroupLayout]:
    """ZeRO 3: every parameter padded and in equal windows, one behind the other."""
    layouts = []
    for rank in range(num_ranks):
        pieces, offset = [], 0
        for number, size in enumerate(SIZES.values()):
            length = -(-size // num_ranks)
            first, last = min(rank * length, size), min((rank + 1) * length, size)
            if first < last:
                pieces.append(Piece(number, first, last - first, offset))
            offset += length
        layouts.append(GroupLayout(offset, tuple(SIZES), tuple(pieces)))
    return layouts


LAYOUTS = {
    "1 rank": flattened(1, 0),
    "2 ranks": flattened(2, 1),
    "4 ranks": flattened(4, 2),
    "7 ranks": flattened(7, 3),
    "stage 3, 2 ranks": by_parameter(2),
    "stage 3, 5 ranks": by_parameter(5),
}


def truth(part: str) -> dict[str, Tensor]:
    """The values of each parameter, all different."""
    values = iter(torch.arange(1, 1 + sum(SIZES.values())).float() + 1000 * PARTS.index(part))
    return {name: torch.stack([next(values) for _ in range(size)]) for name, size in SIZES.items()}


def flat_of(layout: GroupLayout, part: str) -> Tensor:
    """What a rank holds under a layout; padding is zero."""
    flat, values = torch.zeros(layout.length), truth(part)
    for piece in layout.pieces:
        source = values[layout.parameters[piece.parameter]]
        flat[piece.offset : piece.offset + piece.length] = source[piece.start :][: piece.length]
    return flat


def write(folder: Path, layouts: list[GroupLayout], parts: tuple[str, ...] = PARTS) -> list[Path]:
    """Writes the shards of some ranks: a group with moments, and one never sampled."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for rank, layout in enumerate(layouts):
        tensors = {f"sampled:{part}": flat_of(layout, part) for part in parts}
        tensors |= {"sampled:step": torch.tensor(12.0), "never:master": flat_of(layout, "master")}
        paths.append(folder / f"{rank}.safetensors")
        ShardData(tensors, Layout({"sampled": layout, "never": layout})).write(paths[-1])
    return paths


@pytest.mark.parametrize("there", LAYOUTS)
@pytest.mark.parametrize("here", LAYOUTS)
def test_every_value_finds_its_place(tmp_path: Path, there: str, here: str) -> None:
    shards = [Shard(path) for path in write(tmp_path, LAYOUTS[there])]
    for layout in LAYOUTS[here]:
        wanted = Layout({"sampled": layout, "never": layout})
        state = RankState(shards, wanted, is_recut=True)
        for part in PARTS:
            assert torch.equal(state[f"sampled:{part}"], flat_of(layout, part))
        assert state["sampled:step"] == 12
        assert "never:exp_avg" not in state
        assert len(state) == 5


def test_no_more_is_read_than_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [Shard(path) for path in write(tmp_path, LAYOUTS["7 ranks"])]
    num_read = 0
    original = Shard.values

    def counted(self: Shard, key: str, start: int, stop: int) -> Tensor:
        nonlocal num_read
        num_read += stop - start
        return original(self, key, start, stop)

    monkeypatch.setattr(Shard, "values", counted)
    layout = LAYOUTS["4 ranks"][1]
    state = RankState(shards, Layout({"sampled": layout}), is_recut=True)
    assert num_read == 0, "nothing is read before it is asked for"
    state["sampled:master"]
    assert num_read == sum(piece.length for piece in layout.pieces)


def test_lacking_values_are_an_error(tmp_path: Path) -> None:
    shards = [Shard(path) for path in write(tmp_path, LAYOUTS["4 ranks"])[:3]]
    layout = LAYOUTS["1 rank"][0]
    state = RankState(shards, Layout({"sampled": layout}), is_recut=True)
    with pytest.raises(FormatError, match="no shard holds the values"):
        state["sampled:master"]


def test_shards_of_different_steps_are_an_error(tmp_path: Path) -> None:
    paths = write(tmp_path, LAYOUTS["2 ranks"])
    write(tmp_path / "other", LAYOUTS["2 ranks"])
    layout = LAYOUTS["2 ranks"][1]
    tensors = {f"sampled:{part}": flat_of(layout, part) for part in PARTS}
    tensors |= {"sampled:step": torch.tensor(13.0), "never:master": flat_of(layout, "master")}
    ShardData(tensors, Layout({"sampled": layout, "never": layout})).write(paths[1])
    wanted = Layout({"sampled": LAYOUTS["1 rank"][0]})
    state = RankState([Shard(path) for path in paths], wanted, is_recut=True)
    with pytest.raises(FormatError, match="do not agree about sampled:step"):
        state["sampled:step"]


def test_a_group_that_no_shard_knows_is_an_error(tmp_path: Path) -> None:
    shards = [Shard(path) for path in write(tmp_path, LAYOUTS["1 rank"])]
    with pytest.raises(FormatError, match="do not agree about other"):
        RankState(shards, Layout({"other": LAYOUTS["1 rank"][0]}), is_recut=True)


def test_half_of_the_moments_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, LAYOUTS["1 rank"], ("master", "exp_avg"))[0]
    with pytest.raises(FormatError, match="sampled: some of its parts are missing"):
        Shard(path)


def broken_layouts() -> Iterator[tuple[str, Any]]:
    """JSON that is no layout of a tensor of four values."""
    good = {"length": 4, "parameters": ["a"], "pieces": [[0, 0, 4, 0]]}
    yield "no JSON", "{"
    yield "deep", "[" * 100_000
    yield "a list", "[]"
    for name, value in {
        "length": [-1, "4", None, 2**80, True],
        "parameters": [None, {}, []],
        "pieces": [
            None,
            [[0, 0, 4]],
            [[1, 0, 4, 0]],
            [[0, 0, 4, 1]],
            [[0, 0, 2, 0]] * 2,
            [["a"] * 4],
        ],
    }.items():
        for wrong in value:  # type: ignore[attr-defined]
            yield f"{name} {wrong}", json.dumps({"g": {**good, name: wrong}})
    yield "another length", json.dumps({"g": {**good, "length": 5}})
    yield "another group", json.dumps({"h": good})
    yield "no group", "{}"


@pytest.mark.parametrize(("case", "text"), list(broken_layouts()))
def test_a_header_of_nonsense_is_one_message(tmp_path: Path, case: str, text: str) -> None:
    path = tmp_path / "shard.safetensors"
    save_file({"g:master": torch.zeros(4)}, path, {"layout": text})
    with pytest.raises(FormatError, match=r"shard\.safetensors: "):
        Shard(path)


def test_a_layout_reads_back_as_it_was_written() -> None:
    layout = Layout({"g": LAYOUTS["stage 3, 5 ranks"][4]})
    assert Layout.parse(layout.to_text()) == layout
    assert all(len(astuple(piece)) == 4 for piece in layout.groups["g"].pieces)


def test_a_file_that_is_no_shard_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "shard.safetensors"
    for content in (b"", b"nonsense", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"shard\.safetensors: "):
            Shard(path)
