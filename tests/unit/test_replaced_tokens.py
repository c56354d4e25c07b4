"""Replaced-token detection: the generator, what it draws, and the two losses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from bert_examples import PACKED, PADDED, VOCABULARY, batch, config
from electra_examples import DROPLESS, PATH, SIZES, SPACE, GreedyElectra, electra, repeating_rows

from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.bert.generator import GeneratorSizes
from magicbert.bert.objectives.rtd import CorruptedBatch, ReplacedTokenDetection
from magicbert.config.roots import PretrainConfig, RetrainConfig
from magicbert.config.sections import AlignmentSection, MaskingSection, ObjectiveSection
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.scoring import evaluation_mode, score
from magicbert.supernet.shared_prefix import SharedPrefix
from magicbert.training.module import StepPlan, TrainingModule

RTD = ReplacedTokenDetection()
OTHER = Architecture.parse("ffn-conv3-mha4-conv5x24")


@pytest.mark.parametrize(
    ("hidden", "divisor", "layers", "expected"),
    [
        (768, 3, 24, GeneratorSizes(12, 256, 4)),  # ELECTRA-base
        (256, 4, 24, GeneratorSizes(12, 64, 1)),  # ELECTRA-small
        (64, 3, 4, GeneratorSizes(2, 24, 1)),
        (16, 1024, 1, GeneratorSizes(1, 8, 1)),
    ],
)
def test_the_generator_follows_electras_rule(hidden, divisor, layers, expected):
    section = ObjectiveSection(name="rtd", generator_divisor=divisor)
    assert GeneratorSizes.of(section, hidden, layers) == expected
    assert GeneratorSizes.of(dataclasses.replace(section, generator_layers=5), hidden, 24) == (
        dataclasses.replace(expected, num_layers=5)
    )


def test_random_masks_are_refused_in_the_configuration():
    for kind in (PretrainConfig, RetrainConfig):
        wrong = kind(objective=ObjectiveSection(name="rtd"))
        assert any(text.startswith("masking.rule: 'bert'") for text in wrong.validate())
        right = dataclasses.replace(wrong, masking=MaskingSection(rule="electra"))
        assert not list(right.validate())


# --- what the generator draws --------------------------------------------------------------------


@pytest.mark.parametrize("ids", [PADDED, PACKED])
def test_masked_tokens_alone_are_replaced_and_a_token_drawn_as_it_was_is_original(ids):
    model, given = electra().eval(), batch(ids)
    filled = RTD.prepare(model, given)
    flat, positions = filled.input_ids.flatten(), given.predicted_positions
    others = torch.ones(ids.numel(), dtype=torch.bool).index_fill(0, positions, False)
    assert torch.equal(flat[others], given.input_ids.flatten()[others])
    assert not filled.is_replaced.flatten()[others].any()
    # With the drawn tokens as labels, nothing counts as replaced.
    same = dataclasses.replace(given, labels=flat[positions])
    assert not RTD.prepare(model, same).is_replaced.any()
    half = dataclasses.replace(given, labels=flat[positions].index_fill(0, torch.tensor([1]), 0))
    assert RTD.prepare(model, half).is_replaced.sum() == 1


def test_draws_follow_the_generators_distribution():
    model = electra()
    torch.manual_seed(0)
    model.generator.bias.data.normal_(std=1.5)
    one = torch.randn(1, 16)
    wanted = (one @ model.embeddings.tokens.weight.T + model.generator.bias).softmax(-1)[0]
    drawn = model.sample(one.expand(20_000, -1), torch.Generator().manual_seed(1))
    found = torch.bincount(drawn, minlength=VOCABULARY) / 20_000
    assert (found - wanted).abs().max() < 5 * (wanted.max() / 20_000).sqrt()
    assert drawn.unique().numel() > 20


def test_scores_do_not_depend_on_the_random_state_and_steps_do():
    model, given = electra().eval(), [batch(PADDED), batch(PACKED, seed=1)]
    torch.manual_seed(1)
    first = score(model, RTD, given, PATH)
    torch.manual_seed(2)
    assert score(model, RTD, given, PATH) == first
    model.train()
    assert score(model, RTD, given, PATH) == first
    drawn = [RTD.prepare(model, batch(PACKED)).input_ids for _ in range(4)]
    assert not all(torch.equal(drawn[0], other) for other in drawn[1:])
    torch.manual_seed(2)
    again = RTD.prepare(model, batch(PACKED)).input_ids
    torch.manual_seed(2)
    assert torch.equal(again, RTD.prepare(model, batch(PACKED)).input_ids)


def test_paths_scored_together_and_one_by_one_score_the_same():
    model, given = electra().eval(), [batch(PADDED), batch(PACKED, seed=1)]
    together = SharedPrefix(model, RTD, given)((PATH, OTHER))
    for path, (one, two) in together.items():
        assert one + two == score(model, RTD, given, path)
        assert len(one.logged) == len(RTD.logged)


def test_what_was_filled_once_stays_so():
    model = electra()
    filled = RTD.prepare(model, batch(PACKED))
    assert RTD.prepare(model, filled) is filled
    moved = filled.to(torch.device("cpu"))
    assert isinstance(moved, CorruptedBatch)
    assert torch.equal(moved.is_replaced, filled.is_replaced)


# --- the losses ----------------------------------------------------------------------------------


def test_the_losses_are_their_formulas():
    model, given = electra().eval(), batch(PADDED)
    filled = RTD.prepare(model, given)
    result = RTD(model, filled, PATH)
    valid = PADDED > 0
    logits = model.discriminator(model(filled, PATH).hidden)
    bce = F.binary_cross_entropy_with_logits(
        logits[valid], filled.is_replaced[valid].float(), reduction="sum"
    )
    assert torch.allclose(result.loss_sum, bce)
    assert (result.count, RTD.num_auxiliary(given), result.weight) == (valid.sum(), 6, 50.0)
    decoded = model.fill(given) @ model.embeddings.tokens.weight.T + model.generator.bias
    assert torch.allclose(result.auxiliary, F.cross_entropy(decoded, given.labels, reduction="sum"))
    guesses, truth = logits[valid] > 0, filled.is_replaced[valid]
    sums = {name: float(result.metrics[name]) for name in RTD.logged}
    rates = RTD.rates(sums)
    assert rates["discriminator_accuracy"] == pytest.approx(
        float((guesses == truth).float().mean())
    )
    assert rates["discriminator_recall"] == pytest.approx(float(guesses[truth].float().mean()))
    assert rates["generator_accuracy"] == pytest.approx(
        float((decoded.argmax(-1) == given.labels).float().mean())
    )
    assert RTD.rates(dict.fromkeys(sums, 0.0))["discriminator_precision"] is None


def test_no_gradient_goes_through_the_draw():
    model = electra().train()
    result = RTD(model, batch(PACKED), PATH)
    generator = dict(model.generator.named_parameters())
    result.loss_sum.backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in generator.values())
    result.auxiliary.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in generator.values())
    layers = [p for name, p in model.named_parameters() if name.startswith("discriminator")]
    before = [p.grad.clone() for p in layers]
    RTD(model, batch(PACKED), PATH).auxiliary.backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(before, layers, strict=True))


def whole_and_parts(form: AlignmentSection) -> list[dict[str, torch.Tensor]]:
    """Gradients of a step in one piece, and in pieces with unequal numbers of terms."""
    given = batch(PACKED, num_predicted=7)
    rows = [cut(given, slice(row, row + 1)) for row in range(2)]
    assert len({len(row.labels) for row in rows}) == 2
    assert len({RTD.count(row) for row in rows}) == 2
    found = []
    for parts in ([given], rows):
        model = GreedyElectra(SPACE, config(**DROPLESS), 0, SIZES).train()
        module = TrainingModule(model, RTD, form)
        anchor = OTHER if form.enabled else None
        plan = StepPlan(0, PATH, anchor, RTD.count(given), 25, num_auxiliary=7)
        outputs = [module(part, plan) for part in parts]
        sum(output[0] for output in outputs).backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append(gradients | {"logged": sum(output[3] for output in outputs)})
    return found


def cut(given: TokenBatch, rows: slice) -> TokenBatch:
    """Returns some rows of a batch."""
    length = given.input_ids.shape[1]
    inside = (given.predicted_positions >= rows.start * length) & (
        given.predicted_positions < rows.stop * length
    )
    return TokenBatch(
        given.input_ids[rows], given.segment_ids[rows],
        given.predicted_positions[inside] - rows.start * length, given.labels[inside],
        given.sample_ids[rows],
    )  # fmt: skip


@pytest.mark.parametrize("is_aligned", [False, True])
def test_micro_batches_add_up_to_the_whole_batch(is_aligned):
    whole, parts = whole_and_parts(AlignmentSection(enabled=is_aligned, num_blocks=2))
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], atol=1e-5, rtol=1e-4), name


def test_the_anchor_reads_the_very_rows_that_the_path_reads():
    model = electra().train()
    module = TrainingModule(model, RTD, AlignmentSection(enabled=True, num_blocks=2))
    _, _, aligned, _ = module(batch(PACKED), StepPlan(0, PATH, PATH, 25, 25, num_auxiliary=6))
    assert aligned == 0


# --- the failure that others report: a generator that does not learn -----------------------------


def test_tables_and_their_norm_are_one_for_both_networks():
    model = electra(embedding_size=12)
    shared = {id(p) for p in model.embeddings.parameters()}
    shapes = [tuple(p.shape) for p in model.generator.parameters()]
    assert (VOCABULARY, 12) not in shapes
    assert not shared & {id(p) for p in model.generator.parameters()}
    RTD(model, batch(PACKED), PATH).auxiliary.backward()
    assert model.embeddings.project.weight.grad is None, "the discriminator's own"
    for name in ("tokens.weight", "positions.weight", "norm.weight", "norm.bias"):
        assert model.embeddings.get_parameter(name).grad.abs().sum() > 0, name


def learned(kind: type[ElectraSupernet], num_steps: int = 100) -> float:
    """Trains on rows that repeat a token; returns how often the generator is right elsewhere."""
    space = SearchSpace.of(Architecture.parse("mha2-ffn"))
    sizes = GeneratorSizes(num_layers=1, hidden_size=16, num_heads=2)
    model = kind(space, config(**DROPLESS, initializer_range=0.1), 0, sizes).train()
    module = TrainingModule(model, RTD, AlignmentSection())
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-2)
    (path,) = space.enumerate()
    for step in range(num_steps):
        torch.manual_seed(step)
        given = repeating_rows(step)
        count, num_auxiliary = RTD.count(given), RTD.num_auxiliary(given)
        plan = StepPlan(step, path, None, count, count, num_auxiliary=num_auxiliary)
        module(given, plan)[0].backward()
        adamw.step()
        adamw.zero_grad()
    found = score(model, RTD, [repeating_rows(10_000 + number) for number in range(4)], path)
    accuracy = RTD.rates(dict(zip(RTD.logged, found.logged, strict=True)))["generator_accuracy"]
    assert accuracy is not None
    return accuracy


class CutOffElectra(ElectraSupernet):
    """The known mistake: the generator's loss does not reach what it reads and writes with."""

    def fill(self, batch: TokenBatch) -> torch.Tensor:
        return super().fill(batch).detach()


def test_the_generator_learns_and_a_cut_off_one_does_not():
    assert learned(ElectraSupernet) > 0.9
    assert learned(CutOffElectra) < 0.3


def test_a_batch_without_masks_trains_the_discriminator_alone():
    model = electra().train()
    result = RTD(model, batch(PACKED, num_predicted=0), PATH)
    (result.loss_sum + result.auxiliary).backward()
    assert result.auxiliary.item() == 0.0
    assert model.discriminator.output.weight.grad.abs().sum() > 0


def test_evaluation_leaves_the_training_mode_alone():
    model = electra().train()
    with evaluation_mode(model, PATH):
        assert not model.generator.training
    assert model.generator.encoder.layers[0].training
