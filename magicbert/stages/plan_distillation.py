"""What a teacher beside the labels adds to the plan of a retraining."""

from __future__ import annotations

from dataclasses import dataclass

from magicbert.bert.cost import num_parameters
from magicbert.bert.objective_cost import decoding_flops, map_flops, relation_flops
from magicbert.bert.objectives.building import distilled_objective
from magicbert.bert.rehearsal import Rehearsal
from magicbert.bert.spaces import outline_of
from magicbert.bert.state_matching import StateMatching
from magicbert.bert.supernet import supernet_config
from magicbert.bert.teacher import Teacher
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import PretrainConfig, RetrainConfig
from magicbert.config.sections import DistillationSection, ModelSection
from magicbert.planning.backward import FP32_BYTES
from magicbert.space import SearchSpace
from magicbert.stages.plan_facts import Rows
from magicbert.stages.plan_teacher import encoder_flops, planned_distiller
from magicbert.supernet.objective import Objective


@dataclass(frozen=True)
class PlannedDistillation:
    """A teacher, and what is compared with it.

    Attributes:
        section: how much it counts.
        teacher: without memory; it stays in fp32.
        matching: states that are compared; ``None`` = its logits alone.
        length: positions of a row.
    """

    section: DistillationSection
    teacher: Teacher
    matching: StateMatching | None
    length: int

    @classmethod
    def of(
        cls,
        config: PretrainConfig | RetrainConfig,
        options: PlanSection,
        rows: Rows,
        space: SearchSpace,
        model: ModelSection,
    ) -> PlannedDistillation | None:
        """Returns the distillation that is planned; ``None`` where there is no teacher.

        Args:
            config: of the run.
            options: may give the sizes of a teacher that is not there yet.
            rows: sizes of a row.
            space: the path that is trained.
            model: sizes of the student.

        Raises:
            UserError: there is no such teacher, or the two cannot be compared.
        """
        teacher = planned_distiller(config, options, rows)
        if teacher is None or not isinstance(config, RetrainConfig):
            return None
        student = outline_of(space, supernet_config(model, rows.vocab_size, 0, backend="torch"))
        matching = StateMatching.of(config.distillation, student, teacher.config)
        return cls(config.distillation, teacher, matching, rows.length)

    def objective(self) -> Objective:
        """Returns the loss that is trained."""
        return distilled_objective(self.section, self.teacher, self.matching)

    @property
    def teacher_bytes(self) -> int:
        """Bytes of the teacher's weights."""
        return num_parameters(self.teacher.model) * FP32_BYTES

    def teacher_flops(self, num_predicted: float) -> float:
        """Returns the FLOPs of one row through the teacher, with its logits and relations."""
        config = self.teacher.config
        flops = encoder_flops(self.teacher, self.length, config.num_hidden_layers)
        flops += decoding_flops(config, num_predicted)
        if self.matching and self.matching.attention:
            layer = self.teacher.model.model.encoder.layers[self.matching.attention.teacher - 1]
            flops += relation_flops(layer, self.length)
        return flops

    def student_flops(self, supernet: Rehearsal) -> float:
        """Returns the FLOPs of one row's maps to the teacher's widths, and of its relations."""
        if self.matching is None:
            return 0.0
        maps, pair = map_flops(self.matching, self.length), self.matching.attention
        if pair is None:
            return maps
        (name,) = supernet.space.layers[pair.student - 1]
        return maps + relation_flops(supernet.operator(pair.student - 1, name), self.length)
