"""What a model's head gives, by the class that its ``config.json`` names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magicbert.errors import UserError


@dataclass(frozen=True, slots=True)
class Head:
    """A kind of model.

    Attributes:
        suffix: end of the class's name.
        loader: the class of transformers that loads it.
        outputs: name and axes of what it gives, in order.
    """

    suffix: str
    loader: str
    outputs: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what it gives."""
        return tuple(name for name, _ in self.outputs)


TOKEN_LOGITS = ("logits", ("batch", "length", "choice"))
ONE_LOGIT = ("logits", ("batch", "length"))
HEADS = (
    Head("MagicBertForPreTraining", "AutoModelForPreTraining", (ONE_LOGIT,)),
    Head("ElectraForPreTraining", "AutoModelForPreTraining", (ONE_LOGIT,)),
    Head("ForMaskedLM", "AutoModelForMaskedLM", (TOKEN_LOGITS,)),
    Head(
        "ForSequenceClassification",
        "AutoModelForSequenceClassification",
        (("logits", ("batch", "choice")),),
    ),
    Head("ForTokenClassification", "AutoModelForTokenClassification", (TOKEN_LOGITS,)),
    Head(
        "ForQuestionAnswering",
        "AutoModelForQuestionAnswering",
        (("start_logits", ("batch", "length")), ("end_logits", ("batch", "length"))),
    ),
)


def head_of(name: str, architectures: Sequence[str] | None) -> Head:
    """Returns the head of a model.

    Args:
        name: of the model, for the message.
        architectures: of its configuration.

    Raises:
        UserError: it has none of the known heads.
    """
    given = (architectures or ("",))[0]
    for head in HEADS:
        if given.endswith(head.suffix):
            return head
    known = ", ".join(head.suffix for head in HEADS)
    raise UserError(
        f"{name}: config.json names the class {given or 'of no model'!r}, which is not exported to "
        f"ONNX; known endings: {known}"
    )
