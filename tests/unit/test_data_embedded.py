from __future__ import annotations

import ast

from magicbert.data.embedded import described_objects, documents, paragraphs, signature_of


def test_the_embedded_corpus_is_large_english_and_always_the_same() -> None:
    texts = list(documents())

    assert sum(map(len, texts)) > 1_500_000
    assert len(texts) > 2000
    assert texts == list(documents())
    assert sum(" the " in text for text in texts) > 1000
    assert not any(text.startswith(">>>") or "\n>>>" in text for text in texts)


def test_described_objects_have_names_signatures_and_one_line_descriptions() -> None:
    objects = {item.name: item for item in described_objects()}

    decode = objects["json.decoder.JSONDecoder.decode"]
    assert decode.signature.startswith("(self, s")
    assert decode.description.startswith("Return the Python representation")
    assert len(objects) > 3000
    assert all("\n" not in item.description for item in objects.values())


def test_no_test_or_bundled_module_is_read() -> None:
    roots = {item.name.split(".")[0] for item in described_objects()}

    assert roots.isdisjoint({"test", "idlelib", "lib2to3", "site-packages", "numpy", "pip"})


def test_paragraphs_join_lines_and_drop_doctests_and_rulers() -> None:
    text = "Title\n=====\n\nFirst line\n  second line.\n\n>>> code()\n\nLast."

    assert paragraphs(text) == ["Title", "First line second line.", "Last."]


def test_signatures_are_written_as_in_the_source() -> None:
    function, kind = ast.parse("def f(a, *, b=1): pass\nclass C(Base, Other): pass").body

    assert signature_of(function) == "(a, *, b=1)"
    assert signature_of(kind) == "(Base, Other)"
