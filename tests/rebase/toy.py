"""Releases of the toy upstream, and what the series looks like on disk."""

from __future__ import annotations

from pathlib import Path

from tests.project import Project, git


def release(
    project: Project,
    tag: str,
    *,
    replace: dict[str, tuple[str, str]] | None = None,
    edit: dict[str, str | None] | None = None,
) -> str:
    """Commit a new upstream on top of the last and tag it; returns its tree."""
    upstream = project.upstream
    for path, (old, new) in (replace or {}).items():
        text = (upstream / path).read_bytes().decode()
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        (upstream / path).write_bytes(text.replace(old, new).encode())
    for path, content in (edit or {}).items():
        if content is None:
            (upstream / path).unlink()
        else:
            (upstream / path).parent.mkdir(parents=True, exist_ok=True)
            (upstream / path).write_bytes(content.encode())
    git(upstream, "add", "-A", "-f")
    git(upstream, "commit", "-q", "-m", tag)
    git(upstream, "tag", tag)
    return git(upstream, "rev-parse", "HEAD^{tree}")


def on_disk(project: Project) -> dict[str, bytes]:
    """Every file of the series."""
    return {
        str(path.relative_to(project.root)): path.read_bytes()
        for folder in ("patches", "ggml_kernels")
        for path in sorted((project.root / folder).rglob("*"))
        if path.is_file()
    }


def parked(project: Project) -> Path:
    return project.state / "trees" / "rebase"


def statuses(out: str) -> dict[str, str]:
    """Patch -> status, from the table."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("patch "))
    at, end = lines[start].index("status"), lines[start].index("files")
    rows = []
    for line in lines[start + 1 :]:
        if not line.strip():
            break
        if not line.startswith(" "):
            rows.append(line)
    return {row[:at].strip(): row[at:end].strip() for row in rows}
