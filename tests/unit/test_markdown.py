"""Markdown tables keep their columns whatever stands in a cell."""

from magicbert.markdown import markdown_table


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    table = markdown_table(["name", "value"], [["a|b", "1"]])
    assert table == "| name | value |\n| --- | --- |\n| a/b | 1 |"
