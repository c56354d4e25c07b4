"""What the encoder is trained to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveSection:
    """The training objective: hidden tokens are predicted, or replaced ones told apart."""

    name: Literal["mlm", "rtd"] = option(
        "mlm",
        "'mlm': masked language modelling; 'rtd': replaced-token detection beside a generator "
        "(ELECTRA), needs masking.rule electra",
    )
    generator_divisor: float = option(
        3.0,
        "rtd: hidden size of the encoder over that of the generator; ELECTRA-base 3, small 4",
        within="[1, 1024]",
    )
    generator_layers: int = option(
        0,
        "rtd: Transformer layers of the generator; 0 = one for two layers of the encoder",
        within="[0, 1000]",
    )
    discriminator_weight: float = option(
        50.0, "rtd: weight of the discriminator's loss; the generator's is 1", within="(0, 1e6]"
    )
