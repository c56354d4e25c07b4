"""Initial weights from elsewhere: a path of a supernet, or an imported checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from magicbert.bert.importing import Imported
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.supernet import EncoderSupernet
from magicbert.errors import UserError
from magicbert.space import Architecture

# What belongs to an objective: it starts new where the source was trained on another one.
HEADS = ("transform.", "decoder_bias", "discriminator.", "generator.", "hidden_maps.")


@dataclass(frozen=True)
class Inheritance:
    """Weights to start from.

    Attributes:
        source: what they are called in messages.
        config: sizes of the model that they are of.
        architecture: the only path that they fit.
        weights: named as in a supernet over that path.
    """

    source: str
    config: MagicBertConfig
    architecture: Architecture
    weights: dict[str, Tensor]

    @classmethod
    def of_path(cls, supernet: EncoderSupernet, architecture: Architecture) -> Inheritance:
        """Returns the weights of a supernet's path.

        Raises:
            UserError: the supernet does not hold the architecture.
        """
        weights = supernet.path_state(architecture)
        return cls("the supernet to inherit from", supernet.config, architecture, weights)

    @classmethod
    def of_import(cls, source: str, imported: Imported) -> Inheritance:
        """Returns the weights of an imported checkpoint.

        Raises:
            UserError: its decoder is not the token table, as it is in our supernets.
        """
        config = imported.model.config
        if not config.tie_word_embeddings:
            raise UserError(f"{source}: its decoder is not tied to the token table, as ours is")
        architecture = Architecture.parse(config.architecture)
        prefix = "" if imported.head == "none" else "model."
        weights = {
            supernet_name(name.removeprefix(prefix), architecture): value
            for name, value in imported.model.state_dict().items()
            if name != "decoder.weight"
        }
        return cls(source, config, architecture, weights)

    def fill(self, supernet: EncoderSupernet) -> list[str]:
        """Fills a supernet over this one architecture; heads that do not fit stay as they are.

        Returns:
            The parts on top of the encoder that are new.

        Raises:
            UserError: the encoder does not fit.
        """
        own = supernet.state_dict()
        heads = {name for name in {*own, *self.weights} if name.startswith(HEADS)}
        shared = {
            name
            for name in heads
            if name in own and name in self.weights and own[name].shape == self.weights[name].shape
        }
        lost = sorted((own.keys() ^ self.weights.keys()) - heads)
        if lost:
            raise UserError(f"{self.source}: does not fit the model: {', '.join(lost[:3])}")
        kept = {name: v for name, v in self.weights.items() if name in shared or name not in heads}
        supernet.load_state_dict(own | kept)
        return sorted({name.split(".")[0] for name in heads & own.keys() - shared})


def supernet_name(name: str, architecture: Architecture) -> str:
    """Maps a model's parameter name: ``encoder.layers.3.norm.bias`` gets the operator's name."""
    first, *rest = name.split(".")
    if first == "encoder":
        _, layer, *inner = rest
        return ".".join(("layers", layer, architecture[int(layer)], *inner))
    return {"decoder.bias": "decoder_bias"}.get(name, name)
