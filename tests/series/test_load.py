"""Loading a series: what is right loads, and each mistake is one message that names file, key and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llamapatch.errors import UsageProblem
from tests.project import Project


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def failure(project: Project) -> str:
    with pytest.raises(UsageProblem) as caught:
        project.series()
    return str(caught.value).replace(str(project.root) + "/", "")


def test_a_series_as_it_lies_on_disk(sampler: Project) -> None:
    series = sampler.series()
    assert series.ids == ("foundation", "sampler", "warps", "warps-more")
    assert series.pin.tree == sampler.base_tree
    assert series.get("sampler").overlay == {"lp/sampler.cpp": b"void sample() {}\n"}
    assert series.get("warps-more").diff.startswith(b"diff --git a/src/mmvq.cpp b/src/mmvq.cpp\n")
    assert series.get("warps").folder == sampler.root / "patches/phase2/warps"
    assert series.lock is not None


BREAKAGES: dict[str, tuple[Callable[[Project], object], str]] = {
    "no series": (
        lambda p: (p.root / "patches/series.toml").unlink(),
        "",
    ),
    "toml syntax": (
        lambda p: edit(p.root / "patches/series.toml", "[[phase]]", "[[phase]"),
        "patches/series.toml is not valid TOML: Expected ']]' at the end of an array declaration (at line 10, column 8). "
        "Mend that line.",
    ),
    "toml syntax in a patch": (
        lambda p: edit(p.folder("warps") / "patch.toml", 'id = "warps"', "id = warps"),
        "patches/phase2/warps/patch.toml is not valid TOML: Invalid value (at line 2, column 6). Mend that line.",
    ),
    "unknown key": (
        lambda p: edit(p.folder("warps") / "patch.toml", "requires", "require"),
        "patches/phase2/warps/patch.toml: `require`: unknown key. Remove it or correct its spelling; docs/schemas/ has "
        "every key.",
    ),
    "missing key": (
        lambda p: edit(p.folder("warps") / "patch.toml", 'title = "Title of warps"', ""),
        "patches/phase2/warps/patch.toml: `title`: required, but missing. Add it; docs/schemas/ says what it holds.",
    ),
    "wrong value": (
        lambda p: edit(p.folder("warps") / "patch.toml", 'class = "equivalent"', 'class = "harmless"'),
        "patches/phase2/warps/patch.toml: `effect.class`: input should be 'identical', 'equivalent' or 'lossy'. "
        "docs/schemas/ says what the key may hold.",
    ),
    "not utf-8": (
        lambda p: (p.folder("warps") / "patch.toml").write_bytes(b"schema = 1\n# \xff\n"),
        "patches/phase2/warps/patch.toml is not UTF-8 at byte 13. Save it as UTF-8.",
    ),
    "listed, no folder": (
        lambda p: edit(p.root / "patches/series.toml", '"warps",', '"warps",\n    "ghost",'),
        "patches/series.toml: `phase.patches`: phase2 lists `ghost`, but the folder patches/phase2/ghost does not "
        "exist. Write the patch, or take it out of the list.",
    ),
    "folder, not listed": (
        lambda p: edit(p.root / "patches/series.toml", '    "warps-more",\n', ""),
        "patches/phase2/warps-more: the folder is not listed under phase `phase2`. List `warps-more` in "
        "patches/series.toml, or move the folder away.",
    ),
    "in the wrong phase": (
        lambda p: (p.root / "patches/phase2/warps-more").rename(p.root / "patches/phase1/warps-more"),
        "patches/series.toml: `phase.patches`: phase2 lists `warps-more`, but the folder patches/phase2/warps-more "
        "does not exist.\n  also patches/phase1/warps-more: the folder is not listed under phase `phase1`; it is listed in "
        "phase2. Write the patch, or take it out of the list.",
    ),
    "no patch.toml": (
        lambda p: (p.folder("warps") / "patch.toml").unlink(),
        "patches/phase2/warps/patch.toml does not exist. Write it, or take the patch out of series.toml.",
    ),
    "no readme": (
        lambda p: (p.folder("warps") / "README.md").unlink(),
        "patches/phase2/warps: README.md is missing. Say why the patch exists and when it can be dropped.",
    ),
    "nothing in it": (
        lambda p: (p.folder("warps") / "change.patch").unlink(),
        "patches/phase2/warps/patch.toml: the patch has neither a change.patch nor overlay files. Give it one of them.",
    ),
    "twice in a list": (
        lambda p: edit(p.root / "patches/series.toml", '"sampler",', '"sampler",\n    "warps",'),
        "patches/series.toml: `phase.patches`: phase1 lists `warps`, but the folder patches/phase1/warps does not "
        "exist.\n  also patches/series.toml: `phase.patches`: patch `warps` is listed twice, in phase1 and phase2. "
        "Write the patch, or take it out of the list.",
    ),
    "id is not the folder": (
        lambda p: edit(p.folder("warps") / "patch.toml", 'id = "warps"', 'id = "wraps"'),
        "patches/phase2/warps/patch.toml: `id`: `wraps` is not the name of its folder, `warps`.\n  also "
        "patches/phase2/warps-more/patch.toml: `requires`: there is no patch `warps`. A patch is named by its folder.",
    ),
    "phase differs": (
        lambda p: edit(p.folder("warps") / "patch.toml", 'phase = "phase2"', 'phase = "phase1"'),
        "patches/phase2/warps/patch.toml: `phase`: `phase1`, but series.toml lists the patch in phase2. Make the two "
        "agree.",
    ),
    "requires a stranger": (
        lambda p: edit(p.folder("warps") / "patch.toml", '["foundation"]', '["fundation"]'),
        "patches/phase2/warps/patch.toml: `requires`: there is no patch `fundation`. Correct the id, or add the patch.",
    ),
    "requires a later one": (
        lambda p: edit(p.folder("sampler") / "patch.toml", '["foundation"]', '["warps"]'),
        "patches/phase1/sampler/patch.toml: `requires`: `warps` comes later in the series. Move `warps` before "
        "`sampler` in series.toml.",
    ),
    "a circle": (
        lambda p: edit(p.folder("foundation") / "patch.toml", "requires = []", 'requires = ["warps-more"]'),
        "patches/phase0/foundation/patch.toml: `requires`: the patches require each other in a circle: foundation -> "
        "warps-more -> warps -> foundation. Break the circle.",
    ),
    "required and in conflict": (
        lambda p: edit(p.folder("sampler") / "patch.toml", "conflicts = []", 'conflicts = ["foundation"]'),
        "patches/phase1/sampler/patch.toml: `conflicts`: `foundation` is required as well. Keep one of the two.",
    ),
    "overlay source missing": (
        lambda p: (p.root / "ggml_kernels/sampler/sampler.cpp").unlink(),
        "patches/phase1/sampler/patch.toml: overlay source `sampler/sampler.cpp` is no file below ggml_kernels. Write "
        "it, or correct `from`.",
    ),
    "one overlay target, two owners": (
        lambda p: edit(p.folder("sampler") / "patch.toml", 'to = "lp/sampler.cpp"', 'to = "lp/ggml-lp.h"'),
        "patches/phase1/sampler/patch.toml: `overlay.to`: `lp/ggml-lp.h` is already placed by `foundation`. A file is "
        "owned by one patch; a header that several need belongs to the one they all require.",
    ),
    "overlay climbs out": (
        lambda p: edit(p.folder("sampler") / "patch.toml", 'to = "lp/sampler.cpp"', 'to = "../sampler.cpp"'),
        "patches/phase1/sampler/patch.toml: `overlay.0.to`: value error, must be a relative path with forward slashes "
        "that does not climb out. docs/schemas/ says what the key may hold.",
    ),
    "author without mail": (
        lambda p: edit(p.folder("sampler") / "patch.toml", "Ada <ada@localhost>", "Ada"),
        "patches/phase1/sampler/patch.toml: `authors`: `Ada` is not of the form `Name <mail>`. Write it that way.",
    ),
    "switch of another name": (
        lambda p: edit(p.folder("sampler") / "patch.toml", "[upstream]", '[switch]\nenv = "LLAMA_LP_X"\n[upstream]'),
        "patches/phase1/sampler/patch.toml: `switch.env`: must be `LLAMA_LP_SAMPLER`. A switch is named after its "
        "patch.",
    ),
    "reserved word": (
        lambda p: (
            (p.root / "patches/phase1/sampler").rename(p.root / "patches/phase1/all"),
            edit(p.root / "patches/series.toml", '"sampler"', '"all"'),
        ),
        "patches/series.toml: `phase.patches`: `all` is a reserved word. Rename the patch.",
    ),
    "damaged lock": (
        lambda p: edit(p.root / "patches/series.lock", '"chain"', '"chian"'),
        "patches/series.lock is damaged or was written by another version. Run `llamapatch lock`.",
    ),
}


@pytest.mark.parametrize("name", [n for n in BREAKAGES if n != "no series"])
def test_mistakes(sampler: Project, name: str) -> None:
    breakage, message = BREAKAGES[name]
    breakage(sampler)
    said = failure(sampler).replace(str(sampler.root), ".")
    assert said == message
    result = sampler.run("apply")
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err


def test_without_its_own_series_a_project_uses_the_packaged_one(sampler: Project) -> None:
    (sampler.root / "patches/series.toml").unlink()
    settings = sampler.settings()
    assert settings.home != sampler.root
    assert settings.is_packaged


def test_an_overlay_link_cannot_reach_outside(sampler: Project, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    source = sampler.root / "ggml_kernels/sampler/sampler.cpp"
    source.unlink()
    source.symlink_to(tmp_path / "secret")
    assert "overlay source `sampler/sampler.cpp` is no file below" in failure(sampler)
