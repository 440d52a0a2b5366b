"""``llamapatch show``."""

from __future__ import annotations

import click

from llamapatch.cli.common import emit_json, json_option, out, settings
from llamapatch.series.load import load_series
from llamapatch.series.overview import Detail, detail


@click.command()
@click.argument("patch")
@click.option("--diff", "with_diff", is_flag=True, help="Print change.patch, and nothing else.")
@json_option
def command(patch: str, with_diff: bool, as_json: bool) -> None:
    """One patch: what it is, what it touches, how it is switched on, its hashes."""
    found = detail(load_series(settings()), patch)
    if as_json:
        emit_json(_as_data(found, with_diff))
    elif with_diff:
        click.echo(found.patch.diff, nl=False)
    else:
        for name, value in _lines(found):
            out.print(f"{name:<12}{value}", markup=False)


def _lines(found: Detail) -> list[tuple[str, str]]:
    meta = found.patch.meta
    lines = [
        ("patch", meta.id),
        ("title", meta.title),
        ("phase", meta.phase),
        ("authors", ", ".join(meta.authors)),
        ("date", meta.date.isoformat()),
        ("paper", meta.paper or "-"),
        ("requires", ", ".join(meta.requires) or "-"),
        ("required by", ", ".join(found.required_by) or "-"),
        ("conflicts", ", ".join(meta.conflicts) or "-"),
        ("upstream", f"{meta.upstream.status}: {meta.upstream.reason}"),
        ("effect", f"{meta.effect.effect_class} ({', '.join(meta.effect.backends)})"),
        ("switch", f"{meta.switch.env}={'|'.join(meta.switch.values)} (default off)" if meta.switch else "none"),
    ]
    if found.locked:
        for file in found.locked.files:
            origin = " (overlay)" if file.path in found.overlay else ""
            lines.append(("file", f"{_verb(file.pre, file.post)} {file.path}{origin}"))
        for hunk in found.locked.hunks:
            lines.append(("hunk", f"{hunk.path}:{hunk.line}  {hunk.function}".rstrip()))
        lines += [("tree", found.locked.tree), ("commit", found.locked.commit), ("chain", found.locked.chain)]
    else:
        lines += [("file", f"A {path} (overlay)") for path in found.overlay]
        lines.append(("lock", "not current; run `llamapatch lock`"))
    lines += [("diff", found.diff_hash), ("meta", found.meta_hash)]
    lines += [("overlay", f"{oid}  {path}") for path, oid in found.overlay.items()]
    return lines


def _verb(pre: str, post: str) -> str:
    return "A" if not pre.strip("0") else "D" if not post.strip("0") else "M"


def _as_data(found: Detail, with_diff: bool) -> dict[str, object]:
    data: dict[str, object] = {
        "schema": 1,
        "meta": found.patch.meta.model_dump(mode="json", by_alias=True),
        "required_by": list(found.required_by),
        "diff_sha256": found.diff_hash,
        "meta_sha256": found.meta_hash,
        "overlay": found.overlay,
        "locked": found.locked.model_dump(mode="json") if found.locked else None,
    }
    if with_diff:
        data["diff"] = found.patch.diff.decode("utf-8", "replace")
    return data
