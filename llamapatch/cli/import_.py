"""``llamapatch import``."""

from __future__ import annotations

from dataclasses import asdict

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings, upstream_option
from llamapatch.errors import ExitCode
from llamapatch.series.load import load_series
from llamapatch.tree.exchange.importing import Import, Wishes, import_patches
from llamapatch.tree.exchange.sources import read_sources


def _overlay(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        glob, sep, folder = value.partition("=")
        if not sep or not glob or not folder:
            raise click.BadParameter(f"`{value}` is not of the form GLOB=DIR")
        pairs.append((glob, folder.strip("/")))
    return tuple(pairs)


@click.command(name="import")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--phase", default="", metavar="N", help="The phase that the patches go to.")
@click.option("--phase-title", default="", metavar="TEXT", help="Make that phase, with this title, if it is not there.")
@click.option("--before", default="", metavar="ID", help="Put them before this patch.")
@click.option("--after", default="", metavar="ID", help="Put them after this patch.")
@click.option(
    "--from", "repository", metavar="REPO", help="A git repository; SOURCE are commits of it, or give --range."
)
@click.option(
    "--range", "revisions", metavar="BASE..BRANCH", help="A branch of REPO; without BASE, from the pinned tree."
)
@click.option(
    "--merges",
    type=click.Choice(["auto", "linear", "net"]),
    default="auto",
    show_default=True,
    help="Merge commits: their commits one by one, their net change, or whichever makes the merge's own tree.",
)
@click.option(
    "--strip", type=click.IntRange(0, 9), metavar="N", help="Folders that paths of the diffs lose, as patch -p."
)
@click.option("--id", "patch_id", default="", metavar="ID", help="The id of the one patch.")
@click.option("--title", default="", metavar="TEXT", help="The title of the one patch.")
@click.option("--reason", default="", metavar="TEXT", help="Why upstream does not have it; else what the source says.")
@click.option(
    "--class",
    "effect",
    type=click.Choice(["identical", "equivalent", "lossy"]),
    default="lossy",
    show_default=True,
    help="What the patches may do to results; the weakest claim until you measure.",
)
@click.option(
    "--requires", multiple=True, metavar="ID", help="A patch that they need, besides what is seen. Repeatable."
)
@click.option(
    "--overlay",
    multiple=True,
    callback=_overlay,
    metavar="GLOB=DIR",
    help="Keep new files that match GLOB in ggml_kernels/DIR. Repeatable.",
)
@click.option(
    "--keep-going", is_flag=True, help="Take what fits, even when something does not (exit code 3 all the same)."
)
@click.option("--accept", multiple=True, metavar="ID", help="Agree to where this patch landed. Repeatable.")
@dry_run_option
@json_option
@upstream_option
def command(
    sources: tuple[str, ...],
    phase: str,
    phase_title: str,
    before: str,
    after: str,
    repository: str | None,
    revisions: str | None,
    merges: str,
    strip: int | None,
    patch_id: str,
    title: str,
    reason: str,
    effect: str,
    requires: tuple[str, ...],
    overlay: tuple[tuple[str, str], ...],
    keep_going: bool,
    accept: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    upstream: str | None,
) -> ExitCode:
    """Take patches into the series: mail, mailboxes, diffs, quilt folders, commits, whole forks.

    SOURCE is a file (git format-patch, a mailbox, a plain diff), a quilt folder, or a folder of numbered patches; with
    --from, a commit. Each patch is merged three ways where the contents that it was made for are at hand, else it must
    fit exactly. Unless everything fits, nothing is written.
    """
    config = settings(upstream=upstream)
    series = load_series(config)
    fork = read_sources(
        series,
        sources,
        repository=repository,
        revisions=revisions,
        strip=strip,
        merges=merges,  # type: ignore[arg-type]  # click has checked the word
    )
    wishes = Wishes(
        phase=phase,
        phase_title=phase_title,
        before=before,
        after=after,
        id=patch_id,
        title=title,
        reason=reason,
        effect=effect,
        requires=requires,
        overlay=overlay,
        keep_going=keep_going,
        accept=frozenset(accept),
    )
    found = import_patches(config, series, fork, wishes, dry_run=dry_run, report=say)
    if as_json:
        emit_json(
            {
                "schema": 1,
                "dry_run": dry_run,
                "written": bool(found.files) and not dry_run,
                "ids": list(found.ids) if found.files else [],
                "files": sorted(found.files),
                "note": found.note,
                "rows": [asdict(row) for row in found.rows],
            }
        )
    else:
        _print(found, dry_run)
    return ExitCode.CONFLICT if found.conflict else ExitCode.OK


def _print(found: Import, dry_run: bool) -> None:
    """The table of what was taken and what was not."""
    table = [(row.origin, row.status, row.id or "-", row.why) for row in found.rows]
    widths = [max(len(line[i]) for line in table) for i in range(3)]
    for line in table:
        cells = "  ".join(cell.ljust(width) for cell, width in zip(line[:3], widths, strict=True))
        out.print(f"{cells}  {line[3]}".rstrip(), markup=False)
    if found.note:
        out.print(found.note, markup=False)
    word = "would be taken" if dry_run else "taken"
    if found.files:
        out.print(f"{word}: {', '.join(found.ids)}", markup=False)
    else:
        out.print("nothing was taken" + (": not everything fits" if found.conflict else ""), markup=False)
