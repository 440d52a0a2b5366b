"""The entry point: loads a verb's module when it is called, and turns errors into exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import sys

import click

from llamapatch import __version__
from llamapatch.cli.common import complain
from llamapatch.errors import ExitCode, LlamapatchError
from llamapatch.locks import working_as
from llamapatch.process import Terminated, end_children, raise_when_terminated

# Verb -> module under llamapatch.cli that holds `command`. Sections order the help page.
VERBS: dict[str, dict[str, str]] = {
    "Series": {
        "list": "list_",
        "show": "show",
        "init": "init",
        "lock": "lock",
        "new": "new",
        "edit": "edit",
        "refresh": "refresh",
        "move": "move",
        "drop": "drop",
        "import": "import_",
        "export": "export",
        "check": "check",
        "graph": "graph",
    },
    "Tree": {
        "fetch": "fetch",
        "status": "status",
        "apply": "apply",
        "rollback": "rollback",
        "undo": "undo",
        "redo": "redo",
        "log": "log",
        "rebase": "rebase",
        "drift": "drift",
        "verify": "verify",
    },
    "Build and measure": {
        "build": "build",
        "compare": "compare",
        "gate": "gate",
        "waterfall": "waterfall",
        "ablate": "ablate",
        "bisect": "bisect",
        "model": "model",
        "doctor": "doctor",
    },
    "Report": {
        "report": "report",
        "history": "history",
        "ci": "ci",
    },
}


class LazyGroup(click.Group):
    """A group that imports one verb at a time, so that `--help` and completion stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verbs in VERBS.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for verbs in VERBS.values():
            if cmd_name in verbs:
                module = importlib.import_module(f"llamapatch.cli.{verbs[cmd_name]}")
                command: click.Command = module.command
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, verbs in VERBS.items():
            rows = []
            for verb in verbs:
                command = self.get_command(ctx, verb)
                if command is not None and not command.hidden:
                    rows.append((verb, command.get_short_help_str(80)))
            with formatter.section(section):
                formatter.write_dl(rows)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="llamapatch")
def group() -> None:
    """Keep a llama.cpp fork as a series of small patches, and prove each of them."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; nothing but a bug gets past it as a traceback."""
    working_as(shlex.join(sys.argv[1:] if argv is None else argv))
    try:
        result = group.main(args=argv, prog_name="llamapatch", standalone_mode=False)
        return int(result) if isinstance(result, int) else ExitCode.OK
    except LlamapatchError as error:
        complain(error.message, error.remedy)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        complain(error.format_message())
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        end_children()
        complain("interrupted; nothing half-done was left behind.")
        return ExitCode.INTERRUPTED
    except Terminated as stop:
        end_children()
        complain(f"ended by {stop}; nothing half-done was left behind.")
        return 128 + stop.number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.ERROR
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = error.filename or "the state folder"
            complain(f"no space left on the disk of {where}.", "Free some and try again.")
        else:
            complain(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
        return ExitCode.ERROR


def entry() -> None:
    """Console script."""
    raise_when_terminated()
    sys.exit(main())
