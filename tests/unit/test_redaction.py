"""Secrets: found, masked, and kept out of messages, logs and tracebacks."""

from __future__ import annotations

import logging
import sys

import pytest

from magicbert.redaction import RedactingFormatter, print_redacted, redact, secret_in

TOKEN = "hf_AbCdEf0123456789"


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_TOKEN_LONGER", f"{TOKEN}-and-more")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("SHORT_API_KEY", "a1")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"bearer {TOKEN}!", "bearer ***!"),
        (f"{TOKEN}-and-more", "***"),
        ("https://user:pass@host/x", "https://***@host/x"),
        ("https://hf_token@host", "https://***@host"),
        ("git+ssh://git@host", "git+ssh://***@host"),
        ("'https://u:p@h' and http://q:r@s", "'https://***@h' and http://***@s"),
        ("https://host/a@b", "https://host/a@b"),
        ("mail me@host", "mail me@host"),
        ("it is false, a1", "it is false, a1"),
    ],
)
def test_what_is_masked(text: str, masked: str) -> None:
    assert redact(text) == masked
    assert (secret_in(text) is None) == (text == masked)


def test_log_lines_and_tracebacks_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise OSError(f"401 for https://u:p@host with {TOKEN}")
    except OSError:
        information = sys.exc_info()
        print_redacted(*information)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "sent %s", (TOKEN,), information)
    for text in (capsys.readouterr().err, RedactingFormatter("%(message)s").format(record)):
        assert "Traceback" in text
        assert TOKEN not in text
        assert "u:p" not in text
