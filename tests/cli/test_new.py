"""``llamapatch new``: a patch from the templates, in its place, with a reason, and a lock that is current."""

from __future__ import annotations

import json

import pytest

from tests.project import Project


def snapshot(project: Project) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in (project.root / "patches").rglob("*") if p.is_file()}


def test_a_new_patch(sampler: Project) -> None:
    result = sampler.run(
        *("new", "fast-warps", "--phase", "phase1", "--title", 'Warps, "fast"', "--reason", "Upstream has one kernel."),
        *("--class", "equivalent", "--requires", "foundation", "--author", "Ada <ada@localhost>"),
    )
    assert result.code == 0, result.err
    assert result.out == "".join(
        f"wrote  patches/{name}\n"
        for name in (
            "phase1/fast-warps/README.md",
            "phase1/fast-warps/change.patch",
            "phase1/fast-warps/patch.toml",
            "preimages.bundle",
            "series.lock",
            "series.toml",
        )
    )
    patch = sampler.series().get("fast-warps")
    assert (patch.folder / "patch.toml").read_text() == (
        'schema = 1\nid = "fast-warps"\ntitle = "Warps, \\"fast\\""\nphase = "phase1"\nauthors = ["Ada <ada@localhost>"]\n'
        f'date = {patch.meta.date}\nrequires = ["foundation"]\nconflicts = []\n\n[upstream]\nstatus = "not-forwarded"\n'
        'reason = "Upstream has one kernel."\n\n[effect]\nclass = "equivalent"\n'
    )
    assert (patch.folder / "README.md").read_text() == (
        '# fast-warps\n\nWarps, "fast"\n\n## Why it exists\n\nUpstream has one kernel.\n\n## When it can be dropped\n\n'
        "Not decided yet.\n"
    )
    assert (patch.folder / "change.patch").read_bytes() == b""
    assert sampler.series().ids == ("foundation", "sampler", "fast-warps", "warps", "warps-more")
    assert sampler.run("check").code == 0
    assert sampler.run("apply").code == 0
    assert sampler.applied_tree() == sampler.trees["warps-more"]


def test_its_place(sampler: Project) -> None:
    words = ("--reason", "x", "--author", "A <a@b>")
    assert sampler.run("new", "one", "--after", "sampler", *words).code == 0
    assert sampler.run("new", "two", "--before", "one", *words).code == 0
    assert sampler.run("new", "three", "--phase", "phase9", "--phase-title", "Ninth", *words).code == 0
    assert sampler.series().ids == ("foundation", "sampler", "two", "one", "warps", "warps-more", "three")
    assert sampler.series().get("three").meta.title == "Three"
    assert sampler.series().get("two").meta.effect.effect_class == "lossy"


def test_a_dry_run_writes_nothing(sampler: Project) -> None:
    before = snapshot(sampler)
    words = ("new", "one", "--phase", "phase1", "--reason", "x", "--author", "A <a@b>", "--dry-run")
    result = sampler.run(*words, "--json")
    assert json.loads(result.out)["id"] == "one"
    assert json.loads(result.out)["dry_run"] is True
    assert snapshot(sampler) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("one", "--phase", "phase1"), "a patch needs a reason."),
        (("one", "--phase", "phase1", "--reason", "  "), "a patch needs a reason."),
        (("warps", "--phase", "phase1", "--reason", "x"), "`warps` is taken."),
        (("One", "--phase", "phase1", "--reason", "x"), "`One` is no patch id."),
        (("base", "--phase", "phase1", "--reason", "x"), "`base` is a reserved word"),
        (("phase2", "--phase", "phase1", "--reason", "x"), "`phase2` names a patch and a phase"),
        (("one", "--phase", "phase9", "--reason", "x"), "there is no phase `phase9`."),
        (("one", "--reason", "x"), "no phase is named."),
        (("one", "--before", "nobody", "--reason", "x"), "there is no patch `nobody`."),
        (("one", "--phase", "phase1", "--reason", "x", "--requires", "nobody"), "there is no patch `nobody`"),
        (("one", "--phase", "phase1", "--reason", "x", "--requires", "warps"), "`warps` comes later in the series"),
        (("one", "--phase", "phase1", "--reason", "x", "--title", "a\nb"), "must be one line"),
    ],
)
def test_what_is_refused(sampler: Project, words: tuple[str, ...], says: str) -> None:
    before = snapshot(sampler)
    result = sampler.run("new", *words, "--author", "A <a@b>")
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert snapshot(sampler) == before


def test_whose_it_is(sampler: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git knows of the user, or nothing."""
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    result = sampler.run("new", "one", "--phase", "phase1", "--reason", "x")
    assert result.code == 2
    assert result.err == "error: git does not know who you are. Say whose the patch is: `--author 'Name <mail>'`.\n"
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Ada")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "ada@localhost")
    assert sampler.run("new", "one", "--phase", "phase1", "--reason", "x").code == 0
    assert sampler.series().get("one").meta.authors == ["Ada <ada@localhost>"]


def test_a_broken_template(sampler: Project) -> None:
    (sampler.root / "templates/patch").mkdir(parents=True)
    (sampler.root / "templates/patch/patch.toml.j2").write_text("{% if %}")
    result = sampler.run("new", "one", "--phase", "phase1", "--reason", "x", "--author", "A <a@b>")
    assert result.code == 2
    assert "templates/patch/patch.toml.j2 cannot be used: " in result.err
