"""A discriminator leaves the supernet alone: saved, extracted, exported, started from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bert_examples import PACKED, PADDED, batch, config, randomise
from electra_examples import DROPLESS, PATH, SIZES, electra
from exported_run import ARCHITECTURE, RESULT, write_run
from reference_encoders import save_reference
from safetensors.torch import load_file
from transformers import AutoModelForPreTraining

from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.bert.extraction import extract
from magicbert.bert.importing import import_encoder
from magicbert.bert.inheritance import Inheritance
from magicbert.bert.modeling.modeling_discriminator import MagicBertForPreTraining
from magicbert.bert.saving import load_supernet, save_supernet
from magicbert.bert.supernet import BertSupernet
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import ExportConfig, RetrainConfig
from magicbert.config.sections import MaskingSection, ModelSection, ObjectiveSection, RunSection
from magicbert.errors import UserError
from magicbert.records import write_record
from magicbert.space import Architecture, SearchSpace
from magicbert.stages import export
from magicbert.stages.plan import Planner
from magicbert.stages.retrain import inherit


def test_an_extracted_discriminator_computes_what_the_path_does() -> None:
    supernet = randomise(electra()).eval()
    for ids in (PADDED, PACKED):
        given = batch(ids)
        model = extract(supernet, PATH)
        assert isinstance(model, MagicBertForPreTraining)
        inside = supernet.detect(supernet(given, PATH).hidden)
        outside = model(given.input_ids, segment_ids=ids).logits
        assert torch.equal(inside[ids > 0], outside[ids > 0])
    assert not [name for name in model.state_dict() if "generator" in name]


def test_a_supernet_comes_back_with_its_generator(tmp_path: Path) -> None:
    supernet = randomise(electra(embedding_size=12)).eval()
    save_supernet(tmp_path / "supernet", supernet, {})
    again, _ = load_supernet(tmp_path / "supernet")
    assert isinstance(again, ElectraSupernet)
    assert again.sizes == SIZES
    given = batch(PACKED)
    assert torch.equal(again.fill(given), supernet.fill(given))


def test_the_discriminator_alone_is_exported(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    space = SearchSpace.of(ARCHITECTURE)
    there, _ = load_supernet(run / "retrain" / "model")
    model = randomise(ElectraSupernet(space, there.config, 0, SIZES))
    save_supernet(run / "retrain" / "model", model, {})
    result = RESULT | {"objective": "rtd", "unigram_entropy": None}
    write_record(run / "retrain" / "result.json", "magicbert/training-result/1", result)
    export.run(ExportConfig(run=RunSection(root=str(tmp_path), name="demo")))
    names = load_file(run / "export" / "model.safetensors")
    assert not [name for name in names if "generator" in name]
    loaded = AutoModelForPreTraining.from_pretrained(run / "export", trust_remote_code=True)
    ids = torch.arange(5, 15)[None]
    inside = extract(model.eval(), ARCHITECTURE)(ids).logits
    assert torch.allclose(loaded(ids).logits, inside, atol=1e-5)
    card = (run / "export" / "README.md").read_text()
    assert "replaced-token detection" in card
    assert "fill-mask" not in card


# --- starting points -----------------------------------------------------------------------------


def test_heads_of_another_objective_start_new_and_the_encoder_goes_on() -> None:
    space = SearchSpace.of(PATH)
    trained = randomise(BertSupernet(space, config(**DROPLESS), seed=5))
    fresh = ElectraSupernet(space, config(**DROPLESS), 0, SIZES)
    before = {name: value.clone() for name, value in fresh.generator.state_dict().items()}
    new = Inheritance.of_path(trained, PATH).fill(fresh)
    assert new == ["discriminator", "generator"]
    assert torch.equal(fresh.embeddings.tokens.weight, trained.embeddings.tokens.weight)
    assert torch.equal(fresh.layers[0]["mha2"].norm.bias, trained.layers[0]["mha2"].norm.bias)
    assert all(torch.equal(before[n], v) for n, v in fresh.generator.state_dict().items())


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "ElectraForPreTraining", "RobertaModel"])
def test_training_can_start_from_an_imported_checkpoint(kind: str, tmp_path: Path) -> None:
    save_reference(tmp_path, kind)
    start = RetrainConfig(start="imported", checkpoint=str(tmp_path))
    assert not list(start.validate())
    inherited = inherit(start)
    assert inherited is not None
    space = SearchSpace.of(inherited.architecture)
    if kind == "ElectraForPreTraining":
        supernet = ElectraSupernet(space, inherited.config, 0, SIZES)
        assert inherited.fill(supernet) == ["generator"]
    else:
        supernet = BertSupernet(space, inherited.config, 0)
        new = [] if kind == "BertForMaskedLM" else ["decoder_bias", "transform"]
        assert inherited.fill(supernet) == new
    ids = torch.arange(5, 15)[None]
    model = extract(supernet.eval(), inherited.architecture)
    wanted = import_encoder(str(tmp_path)).encoder(ids).last_hidden_state
    assert torch.equal(model.base_model(ids).last_hidden_state, wanted)


def test_another_architecture_than_the_checkpoints_is_refused(tmp_path: Path) -> None:
    save_reference(tmp_path, "BertModel")
    config = RetrainConfig(start="imported", checkpoint=str(tmp_path), architecture="ffn")
    with pytest.raises(UserError, match="architecture: ffn, but"):
        inherit(config)
    problems = list(RetrainConfig(start="scratch", checkpoint="x").validate())
    problems += RetrainConfig(start="imported").validate()
    assert [text.split(":")[0] for text in problems] == ["checkpoint", "checkpoint"]


def test_a_plan_counts_the_generator() -> None:
    model = ModelSection(hidden_size=64, max_length=32)
    options = PlanSection(vocab_size=500)

    def plan(**sections: object) -> Planner:
        config = RetrainConfig(architecture="mha2-ffn-mha2-ffn", model=model, **sections)
        return Planner("retrain", config, options)

    plain = plan()
    electra = plan(objective=ObjectiveSection(name="rtd"), masking=MaskingSection(rule="electra"))
    generator = sum(p.numel() for p in electra.supernet.generator.parameters())
    assert generator > 0
    assert electra.plan().parameters > plain.plan().parameters
    assert electra.memory().activations > plain.memory().activations
    assert electra.path_flops.mean > 1.05 * plain.path_flops.mean
    assert Architecture.parse("mha2-ffn-mha2-ffn") == electra.largest_path
