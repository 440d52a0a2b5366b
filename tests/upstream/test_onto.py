"""``--onto``: a ref, a path or a source, each to the same tree; nothing written to the user's repository."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.series.model import Source, UpstreamPin
from llamapatch.upstream.onto import find_target
from tests.upstream.conftest import Toy, git, snapshot
from tests.upstream.test_sources import fake_npm

__all__ = ["fake_npm"]
MakeSettings = Callable[..., Settings]
MakePin = Callable[..., UpstreamPin]


def test_a_ref_of_the_users_repository(toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    before = snapshot(toy.path)
    target = find_target(make_settings(toy.path), make_pin(), "v2")
    assert (target.tree, target.version, target.behind, target.releases) == (toy.other_tree, "v2", 1, 1)
    assert [s.model_dump(exclude_defaults=True) for s in target.sources] == [
        {"kind": "git", "url": toy.path.as_uri(), "ref": "v2"}
    ]
    pin = target.pin(make_pin())
    assert (pin.version, pin.tree, pin.url) == ("v2", toy.other_tree, toy.path.as_uri())
    assert snapshot(toy.path) == before


def test_a_ref_of_the_git_source(toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    target = find_target(make_settings(), make_pin(), "v2")
    assert (target.tree, target.behind) == (toy.other_tree, None)
    with pytest.raises(UsageProblem, match="it has no v3"):
        find_target(make_settings(), make_pin(), "v3")


def test_paths(toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin) -> None:
    settings, pin = make_settings(), make_pin()
    checkout = find_target(settings, pin, str(toy.path))
    assert (checkout.tree, checkout.version, checkout.behind) == (toy.other_tree, "v2", 1)
    folder = tmp_path / "plain-2.0"
    shutil.copytree(toy.path, folder, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    plain = find_target(settings, pin, str(folder), version="v2")
    assert (plain.tree, plain.version, plain.behind) == (toy.other_tree, "v2", None)
    assert [s.kind for s in plain.sources] == ["git"]
    git(toy.path, "archive", "--prefix=toy-2.0/", "-o", str(tmp_path / "toy-2.0.tar"), "v2")
    archive = find_target(settings, pin, str(tmp_path / "toy-2.0.tar"))
    assert (archive.tree, archive.version) == (toy.other_tree, "toy-2.0")
    assert [s.model_dump(exclude_defaults=True) for s in archive.sources] == [
        {"kind": "tarball", "url": str(tmp_path / "toy-2.0.tar")}
    ]
    by_url = find_target(settings, pin, (tmp_path / "toy-2.0.tar").as_uri())
    assert by_url.tree == toy.other_tree
    with pytest.raises(UsageProblem, match="is an empty folder"):
        (tmp_path / "nothing").mkdir()
        find_target(settings, pin, str(tmp_path / "nothing"))


def test_sources(
    fake_npm: Path,
    toy: Toy,
    make_settings: MakeSettings,
    make_pin: MakePin,
) -> None:
    settings, pin = make_settings(), make_pin()
    lines: list[str] = []
    spec = "npm:pkg@1.0.0:llama/x.bundle"
    target = find_target(settings, pin, spec, report=lines.append)
    assert target.tree in (toy.tree, toy.other_tree)
    assert target.version == "pkg-1.0.0"
    assert list(target.sources) == [Source(kind="npm", package="pkg@1.0.0", member="llama/x.bundle")]
    assert lines[0] == "asking npm for pkg@1.0.0"
    # A version never changes, so it is fetched once.
    lines.clear()
    assert find_target(settings, pin, spec, report=lines.append) == target
    assert lines == []
    with pytest.raises(UsageProblem) as caught:
        find_target(settings, pin, "npm:absent@1.0.0")
    assert str(caught.value) == (
        "npm package absent@1.0.0: npm view failed: 404 No match found for version. Check the name and the version."
    )
    assert find_target(settings, pin, f"git:{toy.path.as_uri()}#v1").tree == toy.tree


@pytest.mark.parametrize("spec", ["npm:pkg", "npm:../x@1:y/../..", "pypi:a", "git:x", "a..b", "-x", "v1:path", ""])
def test_what_is_no_target(spec: str, make_settings: MakeSettings, make_pin: MakePin) -> None:
    with pytest.raises(UsageProblem):
        find_target(make_settings(), make_pin(), spec)
