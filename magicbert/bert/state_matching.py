"""Which states of a student are compared with which of its teacher's.

Layers are numbered from 1, as everywhere; 0 is the embeddings. An encoder of ours counts attention
and feed-forward as two layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magicbert.bert.modeling.attention import Attention
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.operators import find_operator
from magicbert.config.sections import DistillationSection
from magicbert.errors import UserError
from magicbert.supernet.supernet import block_ends


@dataclass(frozen=True)
class HiddenPair:
    """Two layers whose hidden states are compared.

    Attributes:
        student: number of the student's layer.
        teacher: number of the teacher's.
        student_width: of the student's state.
        teacher_width: of the teacher's.
    """

    student: int
    teacher: int
    student_width: int
    teacher_width: int


@dataclass(frozen=True)
class AttentionPair:
    """Two attention layers whose relations are compared.

    Attributes:
        student: number of the student's layer.
        teacher: number of the teacher's.
        num_heads: relation heads, of both.
    """

    student: int
    teacher: int
    num_heads: int


@dataclass(frozen=True)
class StateMatching:
    """What is compared, and how much it counts.

    Attributes:
        hidden: pairs of hidden states; none = hidden states are not compared.
        attention: the pair of attention layers; ``None`` = relations are not compared.
        hidden_weight: of the squared error, in the loss of a position.
        attention_weight: of the divergence of relations.
    """

    hidden: tuple[HiddenPair, ...]
    attention: AttentionPair | None
    hidden_weight: float
    attention_weight: float

    @classmethod
    def of(
        cls, section: DistillationSection, student: MagicBertConfig, teacher: MagicBertConfig
    ) -> StateMatching | None:
        """Returns what the section asks for; ``None`` where it is nothing.

        Args:
            section: weights, points and relation heads.
            student: its architecture and widths.
            teacher: the same.

        Raises:
            UserError: a model has too few layers, no attention, or no room for the heads.
        """
        if not section.hidden_weight and not section.attention_weight:
            return None
        hidden = hidden_pairs(section.hidden_points, student, teacher)
        return cls(
            hidden if section.hidden_weight else (),
            attention_pair(section.relation_heads, student, teacher)
            if section.attention_weight
            else None,
            section.hidden_weight,
            section.attention_weight,
        )

    def student_layers(self) -> tuple[int, ...]:
        """Returns after which of the student's layers the state is kept."""
        before = (self.attention.student - 1,) if self.attention else ()
        return tuple(sorted({*(pair.student for pair in self.hidden), *before}))

    def teacher_layers(self) -> tuple[int, ...]:
        """Returns after which of the teacher's layers the state is kept."""
        before = (self.attention.teacher - 1,) if self.attention else ()
        return tuple(sorted({*(pair.teacher for pair in self.hidden), *before}))


def hidden_pairs(
    num_points: int, student: MagicBertConfig, teacher: MagicBertConfig
) -> tuple[HiddenPair, ...]:
    """Returns layers at equal shares of both depths; the last pair is that of the last layers.

    Raises:
        UserError: a model has fewer layers than points.
    """
    for name, config in (("student", student), ("teacher", teacher)):
        if config.num_hidden_layers < num_points:
            raise UserError(
                f"distillation.hidden_points: {num_points}, but the {name} has "
                f"{config.num_hidden_layers} layers"
            )
    ends = zip(
        block_ends(student.num_hidden_layers, num_points),
        block_ends(teacher.num_hidden_layers, num_points),
        strict=True,
    )
    return tuple(
        HiddenPair(one, other, student.widths[one - 1], teacher.widths[other - 1])
        for one, other in ends
    )


def attention_pair(
    num_heads: int, student: MagicBertConfig, teacher: MagicBertConfig
) -> AttentionPair:
    """Returns the last attention layers of both (MiniLM 3.1 compares those alone).

    Raises:
        UserError: a model has no attention, or its width is not made of so many heads.
    """
    layers = []
    for name, config in (("student", student), ("teacher", teacher)):
        layer = last_attention(config.operators)
        if layer is None:
            raise UserError(
                f"distillation.attention_weight: the {name} {config.architecture} has no "
                "attention, whose relations could be compared; leave it at 0"
            )
        if config.widths[layer - 1] % num_heads:
            raise UserError(
                f"distillation.relation_heads: {num_heads} do not divide the width "
                f"{config.widths[layer - 1]} of the {name}'s last attention"
            )
        layers.append(layer)
    return AttentionPair(layers[0], layers[1], num_heads)


def last_attention(operators: Sequence[str]) -> int | None:
    """Returns the number of the last layer with attention; ``None`` = there is none."""
    layers = [
        number for number, name in enumerate(operators, 1) if find_operator(name)[0] is Attention
    ]
    return layers[-1] if layers else None
