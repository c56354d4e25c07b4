"""``pipeline("question-answering")`` for the models of this folder, on long contexts.

transformers 5.3 removed its own pipeline of this name. This one takes and gives the same, and comes
with every model that was fine-tuned on questions: its ``config.json`` names it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Pipeline

from .answer_spans import Span, Window, WindowShape, best_spans, check_room, cut_windows, null_span

WINDOWS_AT_ONCE = 16
CUTTING = ("max_seq_len", "doc_stride", "max_question_len")
RANKING = ("top_k", "max_answer_len", "handle_impossible_answer")


class QuestionAnsweringPipeline(Pipeline):  # type: ignore[misc]
    """Finds the answer to a question in a context.

    Options, at construction or at the call:

    - ``top_k`` (1): answers wanted; more than one gives a list;
    - ``max_answer_len`` (30): tokens of an answer at most;
    - ``handle_impossible_answer``: the empty text is an answer, too; by default of models that
      were fine-tuned with such questions. It is given where the model's ``null_threshold`` says so;
    - ``max_seq_len`` (384), ``doc_stride`` (128), ``max_question_len`` (64): tokens of a window,
      shared by neighbouring windows, and of a question, at most.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __call__(  # type: ignore[no-untyped-def]
        self, inputs=None, *, question: str | None = None, context: str | None = None, **options
    ):
        """Answers one question, or each of a list.

        Args:
            inputs: a mapping with ``question`` and ``context``, or a list of such mappings.
            question: instead of ``inputs``.
            context: instead of ``inputs``.
            options: see the class.

        Returns:
            ``{"score", "start", "end", "answer"}``: probability among the best answers, first
            character, character behind the last, text. A list where several are wanted.
        """
        given = {"question": question, "context": context} if inputs is None else inputs
        for row in given if isinstance(given, list) else [given]:
            for name in ("question", "context"):
                text = row.get(name)
                if not isinstance(text, str) or not text.strip():
                    raise ValueError(f"{name}: give a text that is not empty")
        return super().__call__(given, **options)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], ...]:
        unknown = sorted(options.keys() - {*CUTTING, *RANKING})
        if unknown:
            raise ValueError(f"unknown options: {', '.join(unknown)}")
        cutting = {name: options[name] for name in CUTTING if name in options}
        ranking = {name: options[name] for name in RANKING if name in options}
        return cutting, {}, ranking

    def preprocess(
        self,
        inputs: dict[str, str],
        max_seq_len: int = 384,
        doc_stride: int = 128,
        max_question_len: int = 64,
    ) -> dict[str, Any]:
        """Cuts the windows of one question."""
        limits = (
            self.tokenizer.model_max_length,
            getattr(self.model.config, "max_position_embeddings", max_seq_len),
        )
        length = int(min(max_seq_len, *limits))
        # A model of short rows gets windows in proportion.
        shape = WindowShape(
            length, min(doc_stride, length // 3), min(max_question_len, length // 3)
        )
        check_room(self.tokenizer, shape)
        question, context = inputs["question"], inputs["context"]
        (windows,) = cut_windows(self.tokenizer, [question], [context], shape)
        return {"windows": windows, "context": context}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        windows = model_inputs["windows"]
        logits: list[tuple[Tensor, Tensor]] = []
        for first in range(0, len(windows), WINDOWS_AT_ONCE):
            batch = self._batch(windows[first : first + WINDOWS_AT_ONCE])
            output = self.model(**batch)
            logits += zip(output.start_logits.cpu(), output.end_logits.cpu(), strict=True)
        return {**model_inputs, "logits": logits}

    def _batch(self, windows: list[Window]) -> dict[str, Tensor]:
        ids = [window.input_ids for window in windows]
        lengths = torch.tensor([len(row) for row in ids])
        filler = self.tokenizer.pad_token_id
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=filler).long(),
            "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
        }
        types = [window.token_type_ids for window in windows if window.token_type_ids is not None]
        if types:
            batch["token_type_ids"] = pad_sequence(types, batch_first=True).long()
        return {name: values.to(self.device) for name, values in batch.items()}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        top_k: int = 1,
        max_answer_len: int = 30,
        handle_impossible_answer: bool | None = None,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Returns the best answers."""
        windows, logits = model_outputs["windows"], model_outputs["logits"]
        spans = best_spans(
            windows, model_outputs["context"], logits,
            num_best=max(top_k, 20), max_answer_tokens=max_answer_len,
        )  # fmt: skip
        threshold = getattr(self.model.config, "null_threshold", None)
        may_be_empty = handle_impossible_answer
        if may_be_empty is None:
            may_be_empty = threshold is not None
        if may_be_empty:
            spans = with_null(spans, null_span(windows, logits), threshold or 0.0)
        best = [
            {"score": probability, "start": span.start, "end": span.end, "answer": span.text}
            for span, probability in zip(spans, probabilities(spans), strict=True)
        ][:top_k]
        return best[0] if top_k == 1 and best else best


def with_null(spans: list[Span], null: Span, threshold: float) -> list[Span]:
    """Returns the answers with "no answer" among them: first if its odds are above the threshold.

    Otherwise its rank follows from its score, but it is never first.
    """
    if not spans or null.score - spans[0].score > threshold:
        return [null, *spans]
    behind = sorted([null, *spans[1:]], key=lambda span: -span.score)
    return [spans[0], *behind]


def probabilities(spans: list[Span]) -> list[float]:
    """Returns the softmax of the scores."""
    highest = max((span.score for span in spans), default=0.0)
    weights = [math.exp(span.score - highest) for span in spans]
    return [weight / sum(weights) for weight in weights]
