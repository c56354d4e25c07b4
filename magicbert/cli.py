"""The command line: one verb per stage, YAML plus dotted overrides, ``--help`` from the fields."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from magicbert import __version__
from magicbert.config import roots
from magicbert.config.fields import listed_section
from magicbert.config.plan_section import PlanConfig
from magicbert.config.reading import load_config, to_yaml
from magicbert.errors import EXIT_STOPPED, EXIT_USER_ERROR, UserError
from magicbert.redaction import RedactingFormatter, print_redacted, redact


@dataclass(frozen=True)
class Verb:
    """A verb, its configuration, and the module whose ``run(config)`` does the work.

    Attributes:
        config: root of its configuration.
        module: its module.
        positional: the option that the word after the verb stands for; empty = there is none.
    """

    config: type[Any]
    module: str
    positional: str = ""


# Modules are imported when their verb runs: `--help` and config errors need no torch.
VERBS = {
    "prepare": Verb(roots.PrepareConfig, "magicbert.stages.prepare"),
    "pretrain": Verb(roots.PretrainConfig, "magicbert.stages.pretrain"),
    "analyze": Verb(roots.AnalyzeConfig, "magicbert.stages.analyze", "target"),
    "search": Verb(roots.SearchConfig, "magicbert.stages.search"),
    "retrain": Verb(roots.RetrainConfig, "magicbert.stages.retrain"),
    "compress": Verb(roots.CompressConfig, "magicbert.stages.compress", "target"),
    "export": Verb(roots.ExportConfig, "magicbert.stages.export"),
    "import": Verb(roots.ImportConfig, "magicbert.stages.import_checkpoint"),
    "finetune": Verb(roots.FinetuneConfig, "magicbert.stages.finetune"),
    "compare": Verb(roots.CompareConfig, "magicbert.stages.compare"),
    "report": Verb(roots.ReportConfig, "magicbert.stages.report"),
    "bench": Verb(roots.BenchConfig, "magicbert.stages.bench", "target"),
    "doctor": Verb(roots.DoctorConfig, "magicbert.stages.doctor"),
    "quickstart": Verb(roots.QuickstartConfig, "magicbert.stages.quickstart"),
}
# The module whose ``run(verb, config, options)`` plans a verb.
PLANNED = {
    "pretrain": "magicbert.stages.plan",
    "retrain": "magicbert.stages.plan",
    "compress": "magicbert.stages.plan_compress",
}
PLAN_OPTIONS = "plan."
SHORTHANDS = {"--task": "finetune.tasks", "--model": "finetune.model", "--name": "run.name",
              "--from": "source", "--verify": "run.verify"}  # fmt: skip
# Options that need no value.
FLAGS = {"--aot": "kernels.aot", "--tune": "kernels.tune", "--onnx": "onnx.enabled"}
# What the machine refuses is the user's to mend: a message, not a traceback.
REFUSALS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR,
    errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What the user asked for, before any configuration is read."""

    verb: str
    file: str | None = None
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    print_config: bool = False
    help: bool = False
    plan: Literal["", "table", "json"] = ""
    plan_options: Mapping[str, str] = dataclasses.field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb; a `UserError` becomes one message on standard error and exit code 2."""
    sys.excepthook = print_redacted
    set_up_logging()
    prefer_own_programs()
    try:
        with raising_terminated():
            dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except UserError as error:
        print(redact(f"magicbert: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader has gone, as in `magicbert --help | head`: nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        text = f"magicbert: {error.filename or 'output'}: {error.strerror}"
        print(redact(text), file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except Terminated:
        print("magicbert: stopped; give the same command again to go on", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    except KeyboardInterrupt:
        print("magicbert: interrupted", file=sys.stderr)
        sys.exit(130)


class Terminated(KeyboardInterrupt):
    """SIGTERM came; what is on disk is whole, and stages go on from there."""


@contextmanager
def raising_terminated() -> Iterator[None]:
    """Turns SIGTERM into `Terminated` in the block, as Python does for SIGINT.

    Training has ways of its own, which stand in the place of this one while it runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def prefer_own_programs() -> None:
    """Puts the programs installed with this Python first on the path, as activation does.

    DeepSpeed builds operators with the ninja it finds there, and builds anew for another one.
    """
    own = str(Path(sys.executable).parent)
    others = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder != own]
    os.environ["PATH"] = os.pathsep.join([own, *others])


def set_up_logging() -> None:
    """Sends the program's own messages to standard output, other packages' warnings to error."""
    others = logging.StreamHandler()
    others.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[others])
    logger = logging.getLogger("magicbert")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(RedactingFormatter("%(message)s"))
        logger.addHandler(console)


def dispatch(arguments: list[str]) -> None:
    """Parses, reads the configuration, and runs the verb."""
    if arguments[:1] == ["--version"]:
        print(__version__)
        return
    request = parse(arguments)
    if request is None:
        print(overview())
        return
    verb = VERBS[request.verb]
    if request.help:
        print(verb_help(request.verb, verb))
        return
    config = load_config(verb.config, request.file, request.overrides)
    if request.print_config:
        print(to_yaml(config), end="")
        return
    if request.plan:
        print_plan(request, config)
        return
    importlib.import_module(verb.module).run(config)


def print_plan(request: Request, config: Any) -> None:
    """Prints what a verb will take; its options are no part of the run's configuration.

    Raises:
        UserError: the verb trains nothing, or knows no such option.
    """
    if request.verb == "analyze":
        if request.plan != "table" or request.plan_options:
            raise UserError("analyze ranking knows --plan without options")
        importlib.import_module("magicbert.stages.analyze").plan(config)
        return
    if request.verb not in PLANNED:
        raise UserError(f"--plan is for {', '.join(PLANNED)}, not for {request.verb}")
    given = {"plan.format": request.plan, **request.plan_options}
    options = load_config(PlanConfig, None, given).plan
    importlib.import_module(PLANNED[request.verb]).run(request.verb, config, options)


def parse(arguments: list[str]) -> Request | None:
    """Splits the command line; ``None`` means the overview is wanted.

    The deepspeed launcher puts ``--local_rank=N`` ahead of the verb: it is accepted and dropped,
    ranks come from the environment.

    Raises:
        UserError: an unknown verb, or an option without a value.
    """
    rest = [word for word in arguments if not word.startswith("--local_rank=")]
    if not rest or rest[0] in ("-h", "--help"):
        return None
    name, *queue = rest
    if name not in VERBS:
        raise UserError(f"unknown verb {name!r}{suggest_verb(name)}")
    request = Request(name)
    if VERBS[name].positional and queue and not queue[0].startswith("-"):
        request = with_option(request, f"--{VERBS[name].positional}", queue.pop(0))
    while queue:
        word = queue.pop(0)
        if word in ("-h", "--help"):
            request = dataclasses.replace(request, help=True)
        elif word in ("--print_config", "--print-config"):
            request = dataclasses.replace(request, print_config=True)
        elif word in ("--plan", "--plan=table", "--plan=json"):
            plan: Any = word.partition("=")[2] or "table"
            request = dataclasses.replace(request, plan=plan)
        elif word in FLAGS:
            request = with_option(request, FLAGS[word], "true")
        elif not word.startswith("--"):
            raise UserError(
                f"unexpected {word!r}; options are --config FILE and --section.field VALUE"
            )
        else:
            request = with_option(request, *take_value(word, queue))
    return request


def with_option(request: Request, option: str, value: str) -> Request:
    """Returns the request with one more option; the last one wins, but tasks add up."""
    if option == "--config":
        return dataclasses.replace(request, file=value)
    path = SHORTHANDS.get(option, option.removeprefix("--"))
    if path.startswith(PLAN_OPTIONS):
        # Asking for an option of the plan asks for the plan.
        options = {**request.plan_options, path: value}
        return dataclasses.replace(request, plan=request.plan or "table", plan_options=options)
    if option == "--task":
        before = request.overrides.get(path, "[]").strip("[]")
        value = f"[{before}, {value.strip('[]')}]" if before else f"[{value.strip('[]')}]"
    return dataclasses.replace(request, overrides={**request.overrides, path: value})


def take_value(word: str, queue: list[str]) -> tuple[str, str]:
    """Returns an option and its value, from ``--option=value`` or ``--option value``."""
    if "=" in word:
        option, value = word.split("=", 1)
        return option, value
    if not queue or queue[0].startswith("--"):
        raise UserError(f"option {word} needs a value: {word} VALUE or {word}=VALUE")
    return word, queue.pop(0)


def suggest_verb(name: str) -> str:
    """Returns ', did you mean ...?' or the list of verbs."""
    close = difflib.get_close_matches(name, VERBS, n=1)
    return f", did you mean {close[0]!r}?" if close else f"; one of: {', '.join(VERBS)}"


def overview() -> str:
    """Returns the list of verbs."""
    lines = ["usage: magicbert VERB [--config FILE] [--section.field VALUE ...]", "", "verbs:"]
    lines += [f"  {name:<11} {first_line(verb.config)}" for name, verb in VERBS.items()]
    lines += ["", "magicbert VERB --help lists its options."]
    lines += ["magicbert VERB ... --print_config prints the configuration that would be used."]
    lines += ["magicbert pretrain|retrain|compress ... --plan prints what the run would take."]
    return "\n".join(lines)


def verb_help(name: str, verb: Verb) -> str:
    """Returns every option of a verb with type, default and meaning."""
    word = f" {verb.positional.upper()}" if verb.positional else ""
    lines = [f"usage: magicbert {name}{word} [--config FILE] [--section.field VALUE ...]", ""]
    lines += [first_line(verb.config), ""]
    lines += list(option_lines(verb.config, ""))
    if name in PLANNED:
        lines += ["with --plan or --plan=json, which starts nothing:"]
        lines += list(option_lines(PlanConfig, ""))
    return "\n".join(lines)


def option_lines(kind: type, prefix: str, dashes: str = "--") -> typing.Iterator[str]:
    """Yields the help of one section and of those inside it.

    Args:
        kind: the section.
        prefix: ahead of the names of its options.
        dashes: of an option; none where it can be given as part of a list only.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield f"{field.name}: {first_line(typing.cast(type, hint))}"
            yield from option_lines(typing.cast(type, hint), f"{prefix}{field.name}.")
            yield ""
            continue
        default = show_default(field.default)
        within = f", in {field.metadata['range'].text}" if "range" in field.metadata else ""
        yield f"  {dashes}{prefix}{field.name} {type_name(hint)}  (default: {default}{within})"
        yield f"        {field.metadata['help']}"
        item = listed_section(hint)
        if item is not None:
            yield f"        each: {first_line(item)}"
            yield from (f"      {line}" for line in option_lines(item, "", dashes=""))


def show_default(default: Any) -> str:
    """Returns a default as the user would write it."""
    if isinstance(default, tuple):
        return f"[{', '.join(show_default(item) for item in default)}]"
    if dataclasses.is_dataclass(default):
        given = {name: getattr(default, name) for name in changed_fields(default)}
        return f"{{{', '.join(f'{name}: {show_default(value)}' for name, value in given.items())}}}"
    return "empty" if default == "" else f"{default:g}" if type(default) is float else str(default)


def changed_fields(section: Any) -> list[str]:
    """Returns the fields of a section that differ from their defaults."""
    fields = dataclasses.fields(section)
    return [field.name for field in fields if getattr(section, field.name) != field.default]


def type_name(hint: Any) -> str:
    """Names a field's type as a user writes it."""
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(str(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"[{typing.get_args(hint)[0].__name__}, ...]"
    return str(hint.__name__)


def first_line(kind: type) -> str:
    """Returns the first line of a docstring."""
    return (kind.__doc__ or "").strip().splitlines()[0]
