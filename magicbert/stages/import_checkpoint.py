"""``magicbert import``: a BERT, RoBERTa or ELECTRA checkpoint as an encoder of ours."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from magicbert import __version__
from magicbert.bert.importing import Imported, import_encoder
from magicbert.config.roots import ImportConfig
from magicbert.errors import UserError
from magicbert.export.huggingface import refuse_to_replace_others, write_export
from magicbert.export.imported_card import imported_card
from magicbert.run_lock import alone_in
from magicbert.trail import stage_folder

LOGGER = logging.getLogger("magicbert")


def run(config: ImportConfig) -> None:
    """Reads the checkpoint and writes ``import/`` of the run.

    Raises:
        UserError: the checkpoint is not there, damaged, or cannot be an encoder of ours.
    """
    if not config.source:
        raise UserError("source: give a folder, or a model of the hub: magicbert import --from X")
    folder = stage_folder(config.run, "import")
    with alone_in(folder):
        refuse_to_replace_others(folder)
        imported = import_encoder(config.source)
        with tempfile.TemporaryDirectory() as aside:
            save_tokenizer(config.source, imported, Path(aside))
            origin = provenance(config.source, imported)
            card = imported_card(config.source, imported)
            write_export(folder, imported.model, Path(aside), card, origin)
    LOGGER.info("imported %s, %s", imported.family, imported.model.config.architecture)
    if imported.dropped:
        LOGGER.info("left behind: %s", shortened(imported.dropped))
    LOGGER.info("import finished: %s", folder)


def save_tokenizer(source: str, imported: Imported, folder: Path) -> None:
    """Writes the checkpoint's tokenizer in the form that every stage reads.

    Raises:
        UserError: there is none, or it belongs to another model.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        tokenizer.save_pretrained(folder)
        highest = max(tokenizer.get_vocab().values(), default=-1)
    except Exception as error:  # the tokenizers package raises plain Exception
        text = " ".join(str(error).split())[:300]
        raise UserError(
            f"{source}: its tokenizer cannot be read (tokenizer.json, or the vocabulary of its "
            f"family): {text}"
        ) from error
    if highest < 0 or highest >= imported.model.config.vocab_size:
        raise UserError(
            f"{source}: its tokenizer has token {highest}, its table "
            f"{imported.model.config.vocab_size} rows: they do not belong together"
        )


def provenance(source: str, imported: Imported) -> dict[str, Any]:
    """Returns what the manifest says of where the model comes from."""
    return {
        "stage": "import",
        "source": source,
        "family": imported.family,
        "head": imported.head,
        "dropped": list(imported.dropped),
        "version": __version__,
    }


def shortened(names: tuple[str, ...]) -> str:
    """Returns the first names and how many more there are."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}"
