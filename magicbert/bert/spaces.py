"""Search spaces over BERT operators.

``main`` and ``analysis`` are the paper's two spaces at hidden size 768. In ``main`` the operators
have their native sizes; in ``analysis`` the inner widths make all of them about as large as an
attention layer (2.36M parameters; FFN' is 17% larger). At another hidden size the inner widths
scale with it, and the numbers of heads are kept if they divide it. Smaller forms, for
``space.candidates`` (at hidden 128 a head is 32 wide):

- main: ``[mha4, ffn, conv3, conv5]`` at 128, ``[mha4, ffn, conv3, conv5]`` at 256;
- analysis: ``[mha2, mha4, ffn256, ffn304, conv3x256, conv5x256]`` at 128.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.operator_names import width_of
from magicbert.bert.modeling.operators import check_operator
from magicbert.config.sections import ModelSection, SpaceSection
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace

REFERENCE_HIDDEN_SIZE = 768


@dataclass(frozen=True, slots=True)
class Preset:
    """One of the paper's spaces.

    Attributes:
        num_layers: N.
        candidates: operators at hidden size 768; ``{n}`` is an inner width that scales with it.
    """

    num_layers: int
    candidates: tuple[str, ...]

    def candidates_at(self, hidden_size: int) -> tuple[str, ...]:
        """Returns the operators at a hidden size, inner widths scaled and rounded to 8."""
        return tuple(
            stem + str(scaled(int(inner), hidden_size)) if inner else stem
            for stem, _, inner in (name.partition(":") for name in self.candidates)
        )


PRESETS = {
    "main": Preset(24, ("mha12", "ffn", "conv3", "conv5")),
    "analysis": Preset(12, ("mha6", "mha8", "ffn:1536", "ffn:1792", "conv3x:1536", "conv5x:1536")),
}


def scaled(inner_size: int, hidden_size: int) -> int:
    """Returns an inner width of hidden size 768 at another one, as a multiple of 8."""
    return max(8, round(inner_size * hidden_size / REFERENCE_HIDDEN_SIZE / 8) * 8)


def resolve_space(space: SpaceSection, hidden_size: int) -> SearchSpace:
    """Returns the space that a configuration asks for.

    Raises:
        UserError: an operator is unknown or does not fit the hidden size.
    """
    if space.layers:
        layers = tuple(tuple(names.split("|")) for names in space.layers)
        check_operators(itertools.chain(*layers), hidden_size, "space.layers")
        return SearchSpace(layers)
    preset = PRESETS.get(space.preset)
    candidates = space.candidates or (preset.candidates_at(hidden_size) if preset else ())
    num_layers = space.num_layers or (preset.num_layers if preset else 0)
    check_operators(
        candidates,
        hidden_size,
        "space.candidates" if space.candidates else f"space.preset {space.preset!r}",
    )
    return SearchSpace.uniform(num_layers, candidates)


def check_architecture(architecture: Architecture, hidden_size: int) -> None:
    """Raises `UserError` if an operator of the architecture is unknown or does not fit."""
    check_operators(architecture, hidden_size, f"architecture {architecture}")


def check_operators(names: Iterable[str], hidden_size: int, source: str) -> None:
    """Raises one `UserError` that names every operator that is unknown or does not fit.

    Args:
        names: operators; repeated names are reported once.
        hidden_size: width of the encoder.
        source: where the names come from, for the message.
    """
    problems = []
    for name in dict.fromkeys(names):
        try:
            check_operator(name, hidden_size)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"{source}: " + "; ".join(problems))


def outline_of(space: SearchSpace, config: MagicBertConfig) -> MagicBertConfig:
    """Returns the configuration with a path of the space: the widths that all its paths share.

    Raises:
        UserError: candidates of one layer have several widths, or the last layer's is not the
            hidden size.
    """
    for layer, names in enumerate(space.layers):
        widths = sorted({width_of(name, config.hidden_size) for name in names})
        if len(widths) > 1:
            raise UserError(
                f"space: layer {layer} has candidates of widths {widths}; those of one layer need "
                "one width"
            )
    if widths != [config.hidden_size]:
        raise UserError(
            f"model.hidden_size: {config.hidden_size}, but the last layer has width {widths[0]}"
        )
    outline = copy.copy(config)
    outline.architecture = "-".join(names[0] for names in space.layers)
    return outline


def fitted_to(architecture: Architecture, model: ModelSection) -> ModelSection:
    """Returns the sizes with the hidden size that the last operator states, if it states one."""
    width = width_of(architecture[-1], model.hidden_size)
    return dataclasses.replace(model, hidden_size=width)
