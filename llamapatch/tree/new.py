"""Start a patch: its folder from ``templates/patch/``, its place in ``series.toml``, and the lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.git import user_identity
from llamapatch.series.load import DIFF_NAME, SERIES_NAME, Series, load_series
from llamapatch.series.model import Forwarding
from llamapatch.series.order import insert_id, phase_of
from llamapatch.series.template import NewPatch, render_patch, today
from llamapatch.tree.relock import generated_files
from llamapatch.tree.store import Report, open_store, writing
from llamapatch.tree.write import write_series


@dataclass(frozen=True)
class Started:
    """A patch that was made, or with `dry_run` would be; `files` are below the home of the series."""

    id: str
    phase: str
    files: tuple[str, ...]
    dry_run: bool


def new_patch(
    settings: Settings,
    series: Series,
    patch_id: str,
    *,
    phase: str = "",
    phase_title: str = "",
    before: str = "",
    after: str = "",
    title: str = "",
    reason: str = "",
    effect: str = "lossy",
    requires: Sequence[str] = (),
    author: str = "",
    dry_run: bool = False,
    report: Report | None = None,
) -> Started:
    """Make an empty patch. Raises `UsageProblem` for an id that is taken or malformed, a place that does not exist, and
    a missing reason: a patch without one outlives everybody who knew it."""
    if not reason.strip():
        raise UsageProblem(
            "a patch needs a reason.", "Say with `--reason` why it exists and why upstream does not have it."
        )
    if patch_id in series.ids:
        raise UsageProblem(f"`{patch_id}` is taken.", "Choose another id; see `llamapatch list`.")
    path = settings.patches / SERIES_NAME
    text = insert_id(
        path.read_bytes().decode("utf-8"), patch_id, phase=phase, before=before, after=after, title=phase_title
    )
    home = phase_of(text, patch_id)
    patch = NewPatch(
        id=patch_id,
        title=title.strip() or patch_id.replace("-", " ").capitalize(),
        phase=home,
        authors=[author.strip() or user_identity()],
        date=today(),
        upstream=Forwarding(status="not-forwarded", reason=reason.strip()),
        effect=effect,
        requires=list(dict.fromkeys(requires)),
    )
    folder = f"patches/{home}/{patch_id}"
    made = render_patch(settings.templates, patch) | {DIFF_NAME: b""}
    files: dict[str, bytes | None] = {f"patches/{SERIES_NAME}": text.encode()}
    files |= {f"{folder}/{name}": data for name, data in made.items()}
    with writing(settings):
        planned = load_series(settings, files)
        files |= generated_files(open_store(settings, series, report), planned)
        if not dry_run:
            write_series(settings, files, f"new {patch_id}", read=series.read)
    return Started(patch_id, home, tuple(sorted(files)), dry_run)
