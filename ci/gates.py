"""Gate the patches of the series: stored results of unchanged patches are checked, changed ones are measured again.

usage: python ci/gates.py [--all] [--full] [--write] [PATCH...]

A result lives in ci/results/<id>.json, written by this script with --write and by nothing else: it names the content
hash of the patch and of what it requires, the machine, the command and every figure. ``--all`` measures every patch
again; with ``--full`` that is the whole ladder, unattended. Exit 6 when a declaration does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from llamapatch.config import Settings, load_settings
from llamapatch.errors import ExitCode, UsageProblem
from llamapatch.judge.gate import content_of, violations
from llamapatch.judge.result import Comparison
from llamapatch.process import run
from llamapatch.series.load import Patch, Series, load_series

RESULTS = Path(__file__).resolve().parent / "results"


def stored(patch_id: str) -> tuple[str, Comparison] | None:
    """The content hash and comparison of a committed result."""
    path = RESULTS / f"{patch_id}.json"
    if not path.is_file():
        return None
    raw = json.loads(path.read_text(encoding="utf-8"))
    return raw["content"], Comparison.model_validate(raw["comparison"])


def measure(settings: Settings, patch: Patch, full: bool) -> Comparison:
    """A fresh comparison of one patch through the command line, as a user would run it."""
    words = [sys.executable, "-m", "llamapatch", "compare", patch.id, "--json", *([] if full else ["--quick"])]
    done = run(words, cwd=settings.root, check=False, on_line=None)
    sys.stderr.write(done.stderr)
    if done.code not in (ExitCode.OK, ExitCode.NOT_MEASURED):
        raise SystemExit(done.code)
    return Comparison.model_validate_json(done.stdout)


def gate(settings: Settings, series: Series, patch: Patch, options: argparse.Namespace) -> list[str]:
    """What `patch` breaks; measures it when its stored result is stale, missing or not wanted."""
    assert series.lock is not None
    content = content_of(series.lock, patch.meta)
    known = stored(patch.id)
    if known is not None and known[0] == content and not options.all:
        print(f"{patch.id}: result of {known[1].started} belongs to these bytes")
        return violations(known[1], patch.meta)
    why = "--all" if options.all else "no result is stored" if known is None else "the patch changed"
    print(f"{patch.id}: measuring ({why})", flush=True)
    found = measure(settings, patch, options.full)
    broken = violations(found, patch.meta)
    if options.write and not broken:
        RESULTS.mkdir(exist_ok=True)
        # Where it ran is in `machine`; the folder and the program's path on it are nobody's business.
        command = found.command.split("llamapatch", 1)[-1]
        shown = found.model_copy(update={"raw": Path(found.raw).name, "command": f"llamapatch {command.lstrip()}"})
        text = json.dumps({"content": content, "comparison": shown.data()}, indent=1, sort_keys=True)
        text = text.replace(f"{settings.root}/", "")
        (RESULTS / f"{patch.id}.json").write_text(text + "\n", encoding="utf-8")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patches", nargs="*", metavar="PATCH")
    for flag in ("--all", "--full", "--write"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    settings = load_settings(Path(os.environ.get("LLAMAPATCH_ROOT", ".")))
    series = load_series(settings)
    if series.lock is None:
        raise UsageProblem("patches/series.lock is missing.", "Run `llamapatch lock`.")
    chosen = [series.get(i) for i in options.patches] or list(series.patches)
    failed = False
    for patch in chosen:
        for text in gate(settings, series, patch, options):
            failed = True
            print(f"{patch.id}: FAIL {text}")
    print("gates: failed" if failed else "gates: all hold")
    return ExitCode.GATE_FAILED if failed else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
