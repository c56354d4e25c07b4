"""From the section ``objective`` to an objective and a supernet that fits it."""

from __future__ import annotations

from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.bert.generator import GeneratorSizes
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.objectives.distillation import DistilledMaskedLanguageModeling
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.objectives.rtd import ReplacedTokenDetection
from magicbert.bert.objectives.state_distillation import StateDistillation
from magicbert.bert.state_matching import StateMatching
from magicbert.bert.supernet import BertSupernet, EncoderSupernet
from magicbert.bert.teacher import Teacher
from magicbert.config.sections import DistillationSection, ObjectiveSection
from magicbert.space import SearchSpace
from magicbert.supernet.objective import Objective


def build_objective(section: ObjectiveSection) -> Objective:
    """Returns the objective that a configuration asks for."""
    if section.name == "mlm":
        return MaskedLanguageModeling()
    return ReplacedTokenDetection(section.discriminator_weight)


def distilled_objective(
    section: DistillationSection, teacher: Teacher, matching: StateMatching | None
) -> Objective:
    """Returns the loss of labels and a teacher, with its states where some are compared."""
    share = (teacher, section.weight, section.temperature)
    if matching is None:
        return DistilledMaskedLanguageModeling(*share)
    return StateDistillation(*share, matching)


def supernet_for(
    section: ObjectiveSection, space: SearchSpace, config: MagicBertConfig, seed: int
) -> EncoderSupernet:
    """Returns a supernet with the heads that an objective needs, and new weights.

    Args:
        section: the objective.
        space: candidates per layer; a space of one architecture makes a plain model.
        config: sizes.
        seed: the weights are a function of it; the encoder's are the same for every objective.

    Raises:
        UserError: an operator is unknown or does not fit the hidden size.
    """
    if section.name == "mlm":
        return BertSupernet(space, config, seed)
    sizes = GeneratorSizes.of(section, config.hidden_size, space.num_layers)
    return ElectraSupernet(space, config, seed, sizes)
