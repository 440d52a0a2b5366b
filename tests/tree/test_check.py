"""``llamapatch check``: finds every spelling that is not canonical, mends it, and changes nothing else."""

from __future__ import annotations

import json
import re

import pytest

from tests.project import Project


def test_a_series_in_order(sampler: Project) -> None:
    result = sampler.run("check")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(r"ok  4 patches, chain [0-9a-f]{64}\n", result.out)
    assert json.loads(sampler.run("check", "--json").out)["fixed"] == []
    before = {p: p.read_bytes() for p in (sampler.root / "patches").rglob("*") if p.is_file()}
    assert sampler.run("check", "--fix").code == 0
    assert {p: p.read_bytes() for p in (sampler.root / "patches").rglob("*") if p.is_file()} == before


SPELLINGS = {
    "function text": lambda d: d.replace(b"@@ -8,6 +8,7 @@\n", b"@@ -8,6 +8,7 @@ int f()\n"),
    "one line of context": lambda d: re.sub(
        rb"@@ -8,6 \+8,7 @@\n( .*\n){3}(\+.*\n)( .*\n){3}", b"@@ -10,2 +10,3 @@\n // line 10\n+sample();\n // line 11\n", d
    ),
    "no git header": lambda d: re.sub(rb"(?m)^diff --git .*\n", b"", d),
    "counts with zeros": lambda d: d.replace(b"@@ -8,6 +8,7 @@", b"@@ -8,06 +8,07 @@"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SPELLINGS))
def test_another_spelling_is_found_and_mended(sampler: Project, name: str) -> None:
    path = sampler.folder("sampler") / "change.patch"
    lock = sampler.root / "patches/series.lock"
    right, locked = path.read_bytes(), lock.read_bytes()
    wrong = SPELLINGS[name](right)
    assert wrong != right
    path.write_bytes(wrong)
    found = sampler.run("check")
    assert found.code in (2, 4)
    assert str(path) in found.err
    assert "check --fix" in found.err or found.code == 2
    dry = sampler.run("check", "--fix", "--dry-run")
    assert dry.code == 0, dry.err
    assert dry.out.startswith("would fix  patches/phase1/sampler/change.patch\nok  4 patches")
    assert path.read_bytes() == wrong
    assert sampler.run("check", "--fix").code == 0
    assert (path.read_bytes(), lock.read_bytes()) == (right, locked)
    assert sampler.run("check").code == 0


def test_every_wrong_file_is_named(sampler: Project) -> None:
    """Two patches whose hunks have two lines of context: the same changes, and all of them are reported."""
    paths = [sampler.folder(i) / "change.patch" for i in ("sampler", "warps-more")]
    whole = "@@ -8,6 +8,7 @@\n // line 8\n"
    paths[0].write_text(paths[0].read_text().replace(whole, "@@ -9,5 +9,6 @@\n"))
    text = paths[1].read_text().splitlines(keepends=True)
    start = next(i for i, line in enumerate(text) if line.startswith("@@"))
    at, count = (int(n) for n in re.findall(r"@@ -(\d+),(\d+)", text[start])[0])
    text[start : start + 2] = [f"@@ -{at + 1},{count - 1} +{at + 1},{count - 1} @@\n"]
    paths[1].write_text("".join(text))
    result = sampler.run("check")
    assert (result.code, result.out) == (4, "")
    assert result.err == (
        f"error: {paths[0]}, line 4: not the canonical form; {paths[1]}, line 4: not the canonical form. "
        "Run `llamapatch check --fix`.\n"
    )


def test_a_lock_that_is_stale(sampler: Project) -> None:
    lock = sampler.root / "patches/series.lock"
    lock.write_text(lock.read_text().replace("\n", "\n\n", 1))
    result = sampler.run("check")
    assert result.code == 4
    assert result.err == f"error: {lock}: not what the series makes. Run `llamapatch lock` and commit the file.\n"
    assert sampler.run("check", "--fix").out.startswith("fixed  patches/series.lock\nok  4 patches, chain ")
    (sampler.root / "patches/preimages.bundle").unlink()
    assert sampler.run("check").code == 4


def test_what_cannot_be_mended(sampler: Project) -> None:
    path = sampler.folder("sampler") / "change.patch"
    path.write_text("Subject: x\n\n" + path.read_text())
    assert sampler.run("check").code == 2
    result = sampler.run("check", "--fix")
    assert (result.code, result.out) == (2, "")
    assert f"{path}, line 1: expected `diff --git a/PATH b/PATH`" in result.err
    path.write_text("diff --git a/README.md b/README.md\n--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-# x\n+# y\n")
    assert sampler.run("check").code == 4
    assert sampler.run("check", "--fix").code == 3
