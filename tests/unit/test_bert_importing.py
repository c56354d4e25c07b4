"""Checkpoints of transformers and models of ours compute the same, converted either way."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from bert_examples import randomise
from reference_encoders import LENGTH, SIZES, reference, reference_names, rows, save_reference
from safetensors.torch import load_file, save_file
from torch import nn

from magicbert.bert.importing import import_encoder
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_discriminator import MagicBertForPreTraining
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM, MagicBertModel
from magicbert.errors import UserError

KINDS = {
    "BertModel": MagicBertModel,
    "BertForMaskedLM": MagicBertForMaskedLM,
    "RobertaModel": MagicBertModel,
    "RobertaForMaskedLM": MagicBertForMaskedLM,
    "ElectraModel": MagicBertModel,
    "ElectraForPreTraining": MagicBertForPreTraining,
    "ElectraForMaskedLM": MagicBertForMaskedLM,
}
TOLERANCE = 1e-5


def largest_difference(theirs: nn.Module, ours: nn.Module) -> float:
    """Compares the outputs at valid positions, where they differ from each other."""
    ids, mask = rows(theirs.config.pad_token_id)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask)[0]
        found = ours(ids, attention_mask=mask)[0]
    assert expected[mask > 0].std() > 0.02
    return float((expected - found)[mask > 0].abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_model_computes_what_the_original_does(kind: str, tmp_path: Path) -> None:
    theirs = save_reference(tmp_path, kind)
    imported = import_encoder(str(tmp_path))
    assert type(imported.model) is KINDS[kind]
    assert largest_difference(theirs, imported.model) < TOLERANCE
    assert imported.encoder.config.architecture == "mha3-ffn56-mha3-ffn56"


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "ElectraForPreTraining"])
@pytest.mark.parametrize("sizes", [{"layer_norm_eps": 1e-3}, {"intermediate_size": 96}])
def test_sizes_and_epsilon_are_taken_over(kind: str, sizes: dict, tmp_path: Path) -> None:
    theirs = save_reference(tmp_path, kind, **sizes)
    ours = import_encoder(str(tmp_path)).model
    assert largest_difference(theirs, ours) < TOLERANCE
    assert ours.config.architecture.endswith("ffn" if "intermediate_size" in sizes else "ffn56")


def test_an_electra_as_wide_as_its_embeddings_has_no_projection(tmp_path: Path) -> None:
    theirs = save_reference(tmp_path, "ElectraForPreTraining", embedding_size=24)
    ours = import_encoder(str(tmp_path)).model
    assert ours.config.embedding_size is None
    assert largest_difference(theirs, ours) < TOLERANCE


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "ElectraForPreTraining", "RobertaModel"])
def test_a_model_of_ours_gives_transformers_the_same_logits(kind: str) -> None:
    theirs = reference(kind)
    config = MagicBertConfig(
        architecture="mha3-ffn56-mha3-ffn56", vocab_size=40, hidden_size=24,
        embedding_size=10 if kind.startswith("Electra") else None,
        max_position_embeddings=20, layer_norm_eps=theirs.config.layer_norm_eps,
    )  # fmt: skip
    ours = randomise(KINDS[kind](config), seed=3).eval()
    prefix = theirs.base_model_prefix
    weights = reference_names(ours.state_dict(), prefix)
    if kind == "BertForMaskedLM":
        weights |= {
            "cls.predictions.transform.dense.weight": ours.transform.dense.weight,
            "cls.predictions.transform.dense.bias": ours.transform.dense.bias,
            "cls.predictions.transform.LayerNorm.weight": ours.transform.norm.weight,
            "cls.predictions.transform.LayerNorm.bias": ours.transform.norm.bias,
            "cls.predictions.bias": ours.decoder.bias,
        }
        theirs.load_state_dict(weights, strict=False)
        theirs.cls.predictions.decoder.bias.data = ours.decoder.bias.data
    elif kind == "ElectraForPreTraining":
        head = ours.discriminator
        weights |= {
            "discriminator_predictions.dense.weight": head.dense.weight,
            "discriminator_predictions.dense.bias": head.dense.bias,
            "discriminator_predictions.dense_prediction.weight": head.output.weight,
            "discriminator_predictions.dense_prediction.bias": head.output.bias,
        }
        theirs.load_state_dict(weights)
    else:
        weights = {name.removeprefix("roberta."): value for name, value in weights.items()}
        positions = "embeddings.position_embeddings.weight"
        # Two rows ahead of position 0, and two fewer positions.
        weights[positions] = torch.cat([torch.zeros(2, 24), weights[positions][:18]])
        theirs.load_state_dict(weights, strict=False)
    assert largest_difference(theirs, ours) < TOLERANCE


def test_robertas_positions_begin_behind_the_padding_id(tmp_path: Path) -> None:
    save_reference(tmp_path, "RobertaModel", pad_token_id=3)
    config = import_encoder(str(tmp_path)).model.config
    assert config.max_position_embeddings == SIZES["max_position_embeddings"] - 4
    assert config.pad_token_id == 3


def test_an_untied_decoder_stays_one(tmp_path: Path) -> None:
    theirs = save_reference(tmp_path, "BertForMaskedLM", tie_word_embeddings=False)
    ours = import_encoder(str(tmp_path)).model
    assert not ours.config.tie_word_embeddings
    assert largest_difference(theirs, ours) < TOLERANCE
    ours.save_pretrained(tmp_path / "again")
    again = MagicBertForMaskedLM.from_pretrained(tmp_path / "again")
    assert torch.equal(again.decoder.weight, ours.decoder.weight)


def test_type_0_is_part_of_the_positions_and_type_1_is_not_known(tmp_path: Path) -> None:
    theirs = save_reference(tmp_path, "BertModel")
    ours = import_encoder(str(tmp_path)).model
    ids, mask = rows(0)
    types = torch.zeros_like(ids)
    types[:, LENGTH // 2 :] = 1
    with torch.no_grad():
        pair = theirs(ids, mask, types)[0]
        found = ours(ids, mask, types)[0]
    assert not torch.allclose(pair, found, atol=0.01)
    assert torch.allclose(theirs(ids, mask)[0][mask > 0], found[mask > 0], atol=TOLERANCE)


def test_names_of_old_checkpoints_and_torch_files(tmp_path: Path) -> None:
    theirs = save_reference(tmp_path, "BertForMaskedLM")
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in weights.items()
    }
    old["cls.seq_relationship.weight"] = torch.ones(2, 24)
    torch.save(old, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    imported = import_encoder(str(tmp_path))
    assert largest_difference(theirs, imported.model) < TOLERANCE
    assert imported.dropped == ("cls.seq_relationship.weight",)


def test_weights_in_several_files(tmp_path: Path) -> None:
    theirs = reference("RobertaForMaskedLM")
    theirs.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert largest_difference(theirs, import_encoder(str(tmp_path)).model) < TOLERANCE
    index = tmp_path / "model.safetensors.index.json"
    outside = {"weight_map": {"a": "../model.safetensors"}}
    index.write_text(json.dumps(outside))
    with pytest.raises(UserError, match="must name files of this folder"):
        import_encoder(str(tmp_path))


@pytest.mark.parametrize("kind", [MagicBertModel, MagicBertForMaskedLM, MagicBertForPreTraining])
def test_a_model_of_ours_is_read_too(kind: type, tmp_path: Path) -> None:
    config = MagicBertConfig(architecture="mha2-conv3", vocab_size=40, hidden_size=16)
    model = randomise(kind(config)).eval()
    model.save_pretrained(tmp_path)
    imported = import_encoder(str(tmp_path))
    assert (type(imported.model), imported.family) == (kind, "magicbert")
    ids, mask = rows(0)
    assert torch.equal(imported.model(ids, mask)[0], model(ids, mask)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: 'relative_key'"),
        ({"hidden_act": "swish9"}, "hidden_act: 'swish9': only 'gelu'"),
        ({"is_decoder": True}, "is_decoder: True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "deberta"}, "model_type: 'deberta' cannot be imported; bert, roberta"),
        ({"num_attention_heads": 5}, "num_attention_heads: 5 do not divide hidden_size 24"),
        ({"num_hidden_layers": 3}, r"lack bert\.encoder\.layer\.2\.attention"),
        ({"num_hidden_layers": 1}, r"bert\.encoder\.layer\.1.* has parts"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers: 1000000000000: at most"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0: must be at least 1"),
        ({"vocab_size": 41}, "do not fit config.json.*size mismatch"),
        ({"vocab_size": "many"}, "config.json"),
        ({"intermediate_size": 10**15}, "do not fit config.json"),
    ],
)
def test_what_cannot_be_imported_is_said(changes: dict, message: str, tmp_path: Path) -> None:
    save_reference(tmp_path, "BertForMaskedLM")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=message):
        import_encoder(str(tmp_path))


class Trap:
    """What a pickle must not be able to do."""

    def __reduce__(self) -> tuple:
        return (print, ("code of the checkpoint ran",))


def test_a_pickle_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_reference(tmp_path, "BertModel")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"a": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="more than tensors"):
        import_encoder(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Trap()}))
    with pytest.raises(UserError):
        import_encoder(str(tmp_path))
    assert "ran" not in capsys.readouterr().out


def test_code_that_a_configuration_names_is_not_looked_at(tmp_path: Path) -> None:
    theirs = save_reference(tmp_path, "BertModel")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "code.Model"}, "attn_implementation": "some/kernel"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('ran')")
    assert largest_difference(theirs, import_encoder(str(tmp_path)).model) < TOLERANCE


def test_damaged_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_reference(tmp_path / "whole", "BertModel")
    weights = tmp_path / "whole" / "model.safetensors"
    shutil.copytree(tmp_path / "whole", tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        import_encoder(str(tmp_path / "bad"))
    (tmp_path / "bad" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        import_encoder(str(tmp_path / "bad"))
    weights.unlink()
    save_file({"bert.nothing": torch.ones(1)}, weights)
    with pytest.raises(UserError, match=r"lack bert\.embeddings\.word_embeddings"):
        import_encoder(str(tmp_path / "whole"))
    (tmp_path / "bad" / "config.json").write_text("[")
    save_file({"a": torch.ones(1)}, tmp_path / "bad" / "model.safetensors")
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        import_encoder(str(tmp_path / "bad"))
