"""Configuration: every rule of reading, and that all problems come in one message."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from magicbert.cli import VERBS
from magicbert.config.fields import listed_section
from magicbert.config.reading import from_tree, load_config, to_tree, to_yaml
from magicbert.config.roots import FinetuneConfig, PrepareConfig, PretrainConfig, SearchConfig
from magicbert.config.yaml_text import dump_yaml, parse_yaml
from magicbert.errors import ConfigError


def problems_of(kind: type, text: str, tmp_path: Path, **overrides: str) -> tuple[str, ...]:
    file = tmp_path / "given.yaml"
    file.write_text(text, encoding="utf-8")
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    with pytest.raises(ConfigError) as caught:
        load_config(kind, str(file), dotted)
    assert str(file) in str(caught.value)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("trainin: {seed: 1}", "trainin", "did you mean 'training'"),
        ("training: {num_step: 1}", "training.num_step", "did you mean 'num_steps'"),
        ("training: {zzz: 1}", "training.zzz", "known: seed"),
        ("training: {num_steps: 1.0}", "training.num_steps", "must be a whole number, got 1.0"),
        ("training: {num_steps: '1'}", "training.num_steps", "must be a whole number, got '1'"),
        ("training: {num_steps: true}", "training.num_steps", "must be a whole number, got True"),
        ("training: {num_steps: 1:30}", "training.num_steps", "must be a whole number"),
        ("training: {num_steps: 010}", "training.num_steps", "must be a whole number"),
        ("training: {num_steps: }", "training.num_steps", "must be a whole number, got nothing"),
        ("alignment: {enabled: 1}", "alignment.enabled", "must be true or false, got 1"),
        ("alignment: {enabled: yes}", "alignment.enabled", "must be true or false, got 'yes'"),
        ("run: {name: 3}", "run.name", "must be text, got 3"),
        ("model: {dropout: .nan}", "model.dropout", "finite number, got nan"),
        ("model: {dropout: .inf}", "model.dropout", "finite number, got inf"),
        ("model: {dropout: 1e999}", "model.dropout", "finite number, got inf"),
        ("model: {dropout: '0.1'}", "model.dropout", "finite number, got '0.1'"),
        ("model: {dropout: true}", "model.dropout", "finite number, got True"),
        ("sampling: {method: magic}", "sampling.method", "must be one of uniform, magic-t, strict"),
        ("training: {zero_stage: 4}", "training.zero_stage", "must be one of 0, 1, 2, 3"),
        ("training: {zero_stage: '1'}", "training.zero_stage", "must be one of 0, 1, 2"),
        ("training: {zero_stage: true}", "training.zero_stage", "must be one of 0, 1, 2"),
        (
            "training: {zero_stage: 0, offload_optimizer: true}",
            "training.offload_optimizer", "nothing to offload",
        ),
        ("space: {candidates: ffn}", "space.candidates", "got 'ffn' (str); write [ffn]"),
        ("space: {candidates: [ffn, 3]}", "space.candidates", "must be text, got 3"),
        ("space: {candidates: {a: b}}", "space.candidates", "must be a list"),
        ("model: {max_length: 1e2}", "model.max_length", "must be a whole number, got 100.0"),
        ("optimizer: {learning_rate: 1e300}", "optimizer.learning_rate", "must be in (0, 10]"),
        ("optimizer: {epsilon: 1e-300}", "optimizer.epsilon", "must be in [1e-16, 1]"),
        (f"training: {{seed: {10**400}}}", "training.seed", "must be in [0, 4294967295]"),
        ('run: {name: "a\\0b"}', "run.name", "without control characters"),
        ('run: {name: "a\\nb"}', "run.name", "without control characters"),
        ('run: {name: "\\ud800"}', "run.name", "without control characters"),
        (f"run: {{root: {'x' * 5000}}}", "run.root", "at most 4096 characters, got 5000"),
        (f"run: {{name: {'x' * 300}}}", "run.name", "must be a plain folder name"),
        ("run: {name: a\\b}", "run.name", "must be a plain folder name"),
        ("run: {name: ａ／ｂ}", "run.name", "must be a plain folder name"),
        ("run: {label: ../x}", "run.label", "must be a plain suffix"),
        ("run: {root: 'https://u:p@h/x'}", "run.root", "a user or password in an address"),
        ("training: 5", "training", "must be a section, got 5"),
        ("training: [1]", "training", "must be a section"),
        ("training: {seed: -1}", "training.seed", "must be in [0, 4294967295], got -1"),
        ("run: {name: ..}", "run.name", "must be a plain folder name"),
        ("training: {rows_per_step: 33}", "training.rows_per_step", "not a multiple of"),
    ],
)  # fmt: skip
def test_each_problem_has_its_path_and_says_what_was_given(text, path, words, tmp_path):
    (problem,) = problems_of(PretrainConfig, text, tmp_path)
    assert problem.startswith(f"{path}: ")
    assert words in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {seed: 1, seed: 2}", "line 1, column 21: key 'seed' is given twice"),
        ("training: {seed: 1}\ntraining: {seed: 2}", "line 2, column 1: key 'training'"),
        ("training: [", "line 1"),
        ("a: b: c", "line 1"),
        ("1: 2", "key 1 is not a plain name"),
        ("- training", "must hold sections, got ['training']"),
        ("just text", "must hold sections"),
        ("--- {}\n--- {}", "line 2"),
        ("training: !!python/object/apply:os.getcwd []", "tags are not read"),
        ("run: \x00", "line"),
        ("run: !!str x", "line 1, column 6: tags are not read"),
        ("run: &a {name: x}\nlaunch: *a", "anchors and aliases are not read"),
        ("run: " + "[" * 500, "nested deeper than 16 levels"),
        ("run: " + "{a: " * 500, "nested deeper than 16 levels"),
        ("# " + "x" * (1 << 21), "not a configuration"),
    ],
)
def test_a_file_that_is_no_configuration_is_named_with_the_place(text, words, tmp_path):
    (problem,) = problems_of(PretrainConfig, text, tmp_path)
    assert words in problem or words == "line"


def test_files_that_cannot_be_read_are_named(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(PretrainConfig, str(path), {})
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("run: {name: é}".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 \(byte 12\)"):
        load_config(PretrainConfig, str(latin), {})


def test_a_device_is_read_in_part_only():
    with pytest.raises(ConfigError, match="not a configuration"):
        load_config(PretrainConfig, "/dev/zero", {})


def test_every_number_has_a_range_that_holds_its_default():
    for verb in VERBS.values():
        for section in sections_of(verb.config()):
            hints = typing.get_type_hints(type(section))
            for field in dataclasses.fields(section):
                if hints[field.name] in (int, float, tuple[int, ...], tuple[float, ...]):
                    assert "range" in field.metadata, f"{field.name}: say `within=`"
                    value = getattr(section, field.name)
                    numbers = value if isinstance(value, tuple) else (value,)
                    assert all(number in field.metadata["range"] for number in numbers)


def sections_of(config: object) -> Iterator[object]:
    """Yields a configuration and the sections in it, one of each listed kind among them."""
    yield config
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        item = listed_section(hints[field.name])
        if item is not None:
            yield from sections_of(item())
        if dataclasses.is_dataclass(getattr(config, field.name)):
            yield from sections_of(getattr(config, field.name))


def test_the_value_of_a_secret_variable_is_refused_and_not_repeated(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    with pytest.raises(ConfigError, match=r"run.name: holds the value of \$HF_TOKEN") as caught:
        load_config(PretrainConfig, None, {"run.name": "x-hf_0123456789"})
    assert "0123456789" not in str(caught.value)
    with pytest.raises(ConfigError, match="must be a whole number") as caught:
        load_config(PretrainConfig, None, {"training.seed": "hf_0123456789"})
    assert "0123456789" not in str(caught.value)


def test_typo_wrong_type_and_impossible_values_come_together(tmp_path):
    text = """
    trainin: {seed: 1}
    training: {num_steps: many, log_every: 0}
    optimizer: {learning_rate: -1e-3}
    sampling: {method: magic-t, num_changes: 9}
    space: {num_layers: 4}
    """
    problems = problems_of(PretrainConfig, text, tmp_path, model__dropout="2", run__nam="x")
    paths = {problem.split(":")[0] for problem in problems}
    assert paths == {
        "trainin", "training.num_steps", "training.log_every", "optimizer.learning_rate",
        "sampling.num_changes", "model.dropout", "run.nam",
    }  # fmt: skip


def test_no_problem_is_made_up_from_a_field_that_could_not_be_read(tmp_path):
    """30 rows fit micro-batches of 10, not the default of 32: that default was never asked for."""
    text = "training: {rows_per_step: 30, rows_per_micro_batch: ten}"
    assert len(problems_of(PretrainConfig, text, tmp_path)) == 1
    text = "training: {rows_per_step: 30, rows_per_micro_batchs: 10}"
    assert len(problems_of(PretrainConfig, text, tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E+2", 100.0), (".5", 0.5), ("5.", 5.0), ("3", 3.0), ("-2e3", -2000.0)],
)
def test_numbers_are_read_as_people_write_them(text, value):
    number = parse_yaml(f"x: {text}")["x"]
    assert number == value
    assert isinstance(number, int | float)


def test_empty_file_and_empty_section_mean_the_defaults(tmp_path):
    file = tmp_path / "empty.yaml"
    for text in ("", "# nothing yet\n", "training:\n", "training: {}"):
        file.write_text(text)
        assert load_config(PretrainConfig, str(file), {}) == PretrainConfig()


def test_overrides_win_over_the_file_and_keep_the_rest(tmp_path):
    file = tmp_path / "given.yaml"
    file.write_text("training: {seed: 5, num_steps: 7}\nrun:\n")
    config = load_config(
        PretrainConfig,
        str(file),
        {"training.seed": "6", "optimizer.learning_rate": "1e-4", "run.name": "x"},
    )
    assert (config.training.seed, config.training.num_steps) == (6, 7)
    assert config.optimizer.learning_rate == 1e-4
    assert config.run.name == "x"


@pytest.mark.parametrize("text", ["2024", "yes", "null", "1e5", "[a]", "a: b", "# x", "'q'", "007"])
def test_text_options_take_the_command_line_as_it_stands(text):
    assert load_config(SearchConfig, None, {"run.name": text}).run.name == text


def test_lists_come_from_the_command_line_as_yaml():
    overrides = {"finetune.tasks": "[cola, rte]", "finetune.learning_rates": "[1e-5, 2]"}
    section = load_config(FinetuneConfig, None, overrides).finetune
    assert section.tasks == ("cola", "rte")
    assert section.learning_rates == (1e-5, 2.0)


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("training.seed.x", "1", "training.seed: must be a whole number"),
        ("seed", "1", "seed: unknown option"),
        ("training", "1", "training: must be a section"),
        ("training.", "1", "training.: unknown option"),
        ("training.seed", "[", "training.seed: line 1"),
        ("training.seed", "", "training.seed: must be a whole number, got nothing"),
    ],
)
def test_bad_overrides_are_named(path, text, words):
    with pytest.raises(ConfigError) as caught:
        load_config(PretrainConfig, None, {path: text})
    assert words in str(caught.value)


def test_override_below_a_value_of_the_file(tmp_path):
    problems = problems_of(PretrainConfig, "training: 3", tmp_path, training__seed="1")
    assert "training.seed: training is a value, not a section" in problems


def test_a_huge_number_is_a_problem_not_a_crash(tmp_path):
    (problem,) = problems_of(PretrainConfig, f"model: {{dropout: 1{'0' * 400}}}", tmp_path)
    assert "finite number" in problem
    assert len(problem) < 200


@pytest.mark.parametrize("verb", VERBS)
def test_defaults_are_valid_and_round_trip(verb):
    kind = VERBS[verb].config
    config = load_config(kind, None, {})
    assert config == kind()
    tree = parse_yaml(to_yaml(config)) or {}
    assert from_tree(kind, tree, "written") == config
    assert tree == to_tree(config)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_means(verb):
    for section in sections_of(VERBS[verb].config()):
        for field in dataclasses.fields(section):
            if not dataclasses.is_dataclass(getattr(section, field.name)):
                assert len(field.metadata["help"]) > 10, field.name


@pytest.mark.parametrize(
    "name",
    ["1e-4", "no", "010", "1:30", "null", "~", "2020-01-01", ".5", "0x10", "é", "a: b", "# x", " x",
     "true", "=", "<<", "'", "-", "1_000"],
)  # fmt: skip
def test_awkward_text_round_trips(name):
    config = load_config(PrepareConfig, None, {"run.name": name, "corpus.text_field": name})
    text = to_yaml(config)
    assert from_tree(PrepareConfig, parse_yaml(text), "written") == config


@pytest.mark.parametrize("number", [1e-5, 1e22, 0.1, 5e-324, 1.7e308, -0.0, 123456789.123, 100.0])
def test_awkward_numbers_round_trip(number):
    (back,) = parse_yaml(dump_yaml([number]))
    assert isinstance(back, float)
    assert back == number
    assert math.copysign(1, back) == math.copysign(1, number)


def test_from_tree_names_its_source():
    with pytest.raises(ConfigError, match=r"(?s)runs/a/config.yaml.*search.seedd"):
        from_tree(SearchConfig, {"search": {"seedd": 1}}, "runs/a/config.yaml")


def test_options_of_methods_that_are_off_are_not_judged():
    shallow = {
        "space.preset": "custom",
        "space.num_layers": "2",
        "space.candidates": "[ffn, conv3]",
    }
    load_config(PretrainConfig, None, shallow)
    with pytest.raises(ConfigError, match=r"alignment.num_blocks: 4 is above space.num_layers 2"):
        load_config(PretrainConfig, None, {**shallow, "alignment.enabled": "true"})
