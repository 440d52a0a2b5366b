"""Everything that is fetched: git servers, npm, PyPI, archives; what each says when it cannot deliver."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import lzma
import os
import shutil
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamapatch.config import Settings
from llamapatch.errors import EnvironmentProblem, ExitCode, MismatchError, UsageProblem
from llamapatch.git import Git
from llamapatch.series.model import Source, UpstreamPin
from llamapatch.upstream import fetch
from llamapatch.upstream.fetch import ensure_upstream
from llamapatch.upstream.sources import from_entry, git_url, tarball
from tests.upstream.conftest import Toy, git
from tests.upstream.test_local import assert_whole

MakeSettings = Callable[..., Settings]
MakePin = Callable[..., UpstreamPin]


def archive(toy: Toy, path: Path, rev: str = "v1", prefix: str = "toy-1/") -> Path:
    git(toy.path, "archive", f"--prefix={prefix}", f"--output={path}", rev)
    return path


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def info(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a server on this machine serves, and its URL."""
    root = tmp_path / "web"
    root.mkdir()
    handler = functools.partial(Quiet, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts and never answers: a firewall that swallows packets looks like this from above TCP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# -- git ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", ["v1", "refs/tags/v1", "commit id"])
def test_git_url(ref: str, toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    if ref == "commit id":
        ref = git(toy.path, "rev-parse", "v1")
        git(toy.path, "config", "uploadpack.allowAnySHA1InWant", "true")
    pin = make_pin(Source(kind="git", url=toy.path.as_uri(), ref=ref))
    upstream = ensure_upstream(make_settings(), pin)
    assert_whole(upstream.git_dir, toy.tree)
    assert upstream.source == f"git {toy.path.as_uri()} {ref}"
    # Only the tree is kept: no commit whose parents would be missing.
    kinds = git(upstream.git_dir, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)").split()
    assert set(kinds) == {"blob", "tree"}


def test_git_annotated_tag(toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    pin = make_pin(Source(kind="git", url=toy.path.as_uri(), ref="v2"), tree=toy.other_tree, version="v2")
    assert_whole(ensure_upstream(make_settings(), pin).git_dir, toy.other_tree)


@pytest.mark.parametrize(
    ("url", "ref", "why"),
    [
        ("file:///nonexistent/repo", "v1", "does not "),
        ("{toy}", "v9", "it has no v9"),
        ("https://llamapatch.invalid/repo", "v1", "Could not resolve host"),
        ("--upload-pack=touch pwned", "v1", ""),
        ("ext::sh -c touch% pwned", "v1", "not allowed"),
    ],
)
def test_git_says_why(
    url: str, ref: str, why: str, toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin
) -> None:
    pin = make_pin(Source(kind="git", url=url.format(toy=toy.path.as_uri()), ref=ref))
    with pytest.raises(EnvironmentProblem) as caught:
        ensure_upstream(make_settings(), pin)
    assert caught.value.exit_code == ExitCode.ERROR
    assert why in caught.value.message
    assert not list(tmp_path.rglob("pwned"))


def test_git_does_not_wait_for_a_dead_network(
    silent_port: int, make_settings: MakeSettings, make_pin: MakePin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_url, "ASK_SECONDS", 1.0)
    started = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="no answer within 1 s"):
        ensure_upstream(
            make_settings(), make_pin(Source(kind="git", url=f"http://127.0.0.1:{silent_port}/x", ref="v1"))
        )
    assert time.monotonic() - started < 10


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
def test_archive_hashes_to_the_same_tree(
    suffix: str, toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin
) -> None:
    plain = archive(toy, tmp_path / "x.tar")
    path = tmp_path / f"toy{suffix}"
    if suffix == ".tar.gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    elif suffix == ".tar.xz":
        path.write_bytes(lzma.compress(plain.read_bytes()))
    else:
        plain.rename(path)
    lines: list[str] = []
    settings = make_settings(path)
    assert_whole(ensure_upstream(settings, make_pin(), lines.append).git_dir, toy.tree)
    assert lines[-1].startswith(f"upstream v1 verified: tree {toy.tree}")
    lines.clear()
    ensure_upstream(settings, make_pin(), lines.append)
    assert lines == []


def test_archive_from_the_series_by_path_and_by_url(
    toy: Toy, web: tuple[Path, str], make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path
) -> None:
    root, url = web
    archive(toy, root / "toy.tar.gz")
    settings = make_settings()
    shutil.copy(root / "toy.tar.gz", settings.home / "toy.tar.gz")
    for n, location in enumerate(("toy.tar.gz", f"{url}/toy.tar.gz", (root / "toy.tar.gz").as_uri())):
        settings = make_settings(cache=tmp_path / f"cache{n}")
        assert_whole(ensure_upstream(settings, make_pin(Source(kind="tarball", url=location))).git_dir, toy.tree)


def test_archive_url_that_fails(
    web: tuple[Path, str],
    silent_port: int,
    make_settings: MakeSettings,
    make_pin: MakePin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tarball, "ASK_SECONDS", 1.0)
    (web[0] / "page.tar.gz").write_text("<html>log in first</html>")
    sources = [
        Source(kind="tarball", url=f"{web[1]}/absent.tar.gz"),
        Source(kind="tarball", url=f"http://127.0.0.1:{silent_port}/x.tar.gz"),
        Source(kind="tarball", url=f"{web[1]}/page.tar.gz"),
        Source(kind="tarball", url="absent.tar.gz"),
    ]
    with pytest.raises(EnvironmentProblem) as caught:
        ensure_upstream(make_settings(), make_pin(*sources))
    for why in (
        "(1)",
        "answered 404",
        "(2)",
        "nothing came for 1 s",
        "(3)",
        "no readable tar archive",
        "(4)",
        "no such file",
    ):
        assert why in caught.value.message


def test_archive_cut_short(toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin) -> None:
    whole = gzip.compress(archive(toy, tmp_path / "x.tar").read_bytes())
    for size in (0, 10, len(whole) // 2):
        (tmp_path / "cut.tar.gz").write_bytes(whole[:size])
        with pytest.raises((UsageProblem, MismatchError)):
            ensure_upstream(make_settings(tmp_path / "cut.tar.gz"), make_pin())


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([(info("top/../../escape"), b"x")], "leads out"),
        ([(info("/etc/escape"), b"x")], "leads out"),
        ([(info("top/fifo", type=tarfile.FIFOTYPE), b"")], "neither a file nor a link"),
        ([(info("top/hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"), b"")], "hard link"),
        ([(info("top/dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b"")], "neither a file nor a link"),
        ([(info("top/.git/hooks/post-checkout", mode=0o755), b"x")], "git takes for a repository"),
        ([(info("top/a/.GIT/config"), b"x")], "git takes for a repository"),
        ([(info("alone"), b"x")], "no file below its top folder"),
    ],
)
def test_hostile_archive_is_refused(
    members: list[tuple[tarfile.TarInfo, bytes]],
    why: str,
    tmp_path: Path,
    make_settings: MakeSettings,
    make_pin: MakePin,
) -> None:
    path = write_tar(tmp_path / "bad.tar.gz", *members)
    with pytest.raises(UsageProblem, match=why):
        ensure_upstream(make_settings(path), make_pin())
    assert not list(tmp_path.rglob("escape"))


def bomb(path: Path, kind: str) -> Path:
    """A few kB that claim, and hold, far more than the limits that the test sets."""
    zeros = b"\0" * (3 << 20)
    if kind == "file":
        return write_tar(path, (info("top/a"), b"x"), (info("top/big"), zeros))
    if kind == "skipped":  # not even wanted, but in the way
        return write_tar(path, (info("big"), zeros), (info("top/a"), b"x"))
    if kind == "many":
        return write_tar(path, *((info(f"top/{n}"), b"") for n in range(60)))
    return write_tar(path, (info("top/long", type=tarfile.XHDTYPE), zeros), (info("top/a"), b"x"))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("file", "unpacks to more"),
        ("skipped", "unpacks to more"),
        ("many", "or 50 files"),
        ("header", "has a header of"),
    ],
)
def test_a_bomb_is_refused_before_it_is_unpacked(
    kind: str,
    why: str,
    tmp_path: Path,
    fake_npm: Path,
    make_settings: MakeSettings,
    make_pin: MakePin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llamapatch.upstream.content.MAX_BYTES", 1 << 20)
    monkeypatch.setattr("llamapatch.upstream.content.MAX_FILES", 50)
    path = bomb(tmp_path / "bomb.tar.gz", kind)
    assert path.stat().st_size < 20_000
    with pytest.raises(UsageProblem, match=why):
        ensure_upstream(make_settings(path), make_pin())
    # The same in a package of npm's.
    shutil.copy(path, fake_npm / "pkg-1.0.0.tgz")
    with pytest.raises(EnvironmentProblem, match=f"npm left a bad archive: it .*{why}"):
        ensure_upstream(make_settings(), make_pin(npm("pkg@1.0.0")))
    scratch = make_settings().cache / "upstream-tmp"
    assert not scratch.exists() or sum(p.stat().st_size for p in scratch.rglob("*") if p.is_file()) < 1 << 20


def test_damaged_package_of_npm(fake_npm: Path, make_settings: MakeSettings, make_pin: MakePin) -> None:
    whole = (fake_npm / "pkg-1.0.0.tgz").read_bytes()
    for data in (whole[: len(whole) // 2], b"", whole[:200] + bytes(b ^ 0xFF for b in whole[200:])):
        (fake_npm / "pkg-1.0.0.tgz").write_bytes(data)
        with pytest.raises(EnvironmentProblem, match=r"npm left a bad archive|cannot be read as a git bundle"):
            ensure_upstream(make_settings(), make_pin(npm("pkg@1.0.0")))


def test_links_in_an_archive_are_content_not_paths(tmp_path: Path, make_settings: MakeSettings) -> None:
    """A link out of the archive and a file "below" it: nothing outside is touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    path = write_tar(
        tmp_path / "bad.tar.gz",
        (info("top/a", type=tarfile.SYMTYPE, linkname=str(outside)), b""),
        (info("top/a/pwned"), b"x"),
    )
    upstream = fetch.take(make_settings(), from_entry(Source(kind="tarball", url=str(path)), tmp_path), "v0")
    assert list(outside.iterdir()) == []
    assert [f.path for f in Git(upstream.git_dir).tree_files(upstream.tree)] == ["a/pwned"]


def test_hard_links_modes_and_repeats_in_an_archive(tmp_path: Path, make_settings: MakeSettings) -> None:
    path = write_tar(
        tmp_path / "t.tar.gz",
        (info("top/first", mode=0o755), b"old"),
        (info("top/first", mode=0o755), b"new"),
        (info("top/second", type=tarfile.LNKTYPE, linkname="top/first"), b""),
        (info("top/group-exec", mode=0o654), b"g"),
    )
    upstream = fetch.take(make_settings(), from_entry(Source(kind="tarball", url=str(path)), tmp_path), "v0")
    listed = {(f.path, f.mode) for f in Git(upstream.git_dir).tree_files(upstream.tree)}
    assert listed == {("first", "100755"), ("second", "100755"), ("group-exec", "100644")}
    assert Git(upstream.git_dir).read_file(upstream.tree, "second") == b"new"


def test_export_attributes_are_named(toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin) -> None:
    (toy.path / "src/.gitattributes").write_text("deep export-ignore\n")
    git(toy.path, "add", "-f", "src/.gitattributes")
    git(toy.path, "commit", "-q", "-m", "three")
    wanted = git(toy.path, "rev-parse", "HEAD^{tree}")
    path = archive(toy, tmp_path / "x.tar", "HEAD")
    with pytest.raises(MismatchError, match=r"export attributes in src/\.gitattributes"):
        ensure_upstream(make_settings(path), make_pin(tree=wanted))


# -- npm ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_npm(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``npm`` whose registry is a folder: `view` and `pack` of what lies in it, errors as npm prints them."""
    registry = tmp_path / "registry"
    registry.mkdir()
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f"""#!{sys.executable}
import pathlib, shutil, sys
registry = pathlib.Path({str(registry)!r})
spec = next(a for a in sys.argv[2:] if "@" in a)
file = registry / (spec.replace("@", "-") + ".tgz")
if not file.exists():
    print("npm warn unrelated", file=sys.stderr)
    print("npm error code E404\\nnpm error 404 No match found for version", file=sys.stderr)
    sys.exit(1)
if sys.argv[1] == "view":
    print("cafe")
else:
    assert "--ignore-scripts" in sys.argv
    shutil.copy(file, sys.argv[sys.argv.index("--pack-destination") + 1])
    print(file.name)
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    git(toy.path, "bundle", "create", str(tmp_path / "x.bundle"), "HEAD", "v1")
    bundle = (tmp_path / "x.bundle").read_bytes()
    write_tar(registry / "pkg-1.0.0.tgz", (info("package/llama/x.bundle"), bundle))
    write_tar(registry / "empty-1.0.0.tgz", (info("package/readme"), b"hello"))
    write_tar(registry / "broken-1.0.0.tgz", (info("package/llama/x.bundle"), bundle[: len(bundle) // 2]))
    return registry


def npm(spec: str) -> Source:
    return Source(kind="npm", package=spec, member="llama/x.bundle")


def test_npm_bundle(fake_npm: Path, toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    """The bundle holds two commits; the wanted tree is picked."""
    lines: list[str] = []
    upstream = ensure_upstream(make_settings(), make_pin(npm("pkg@1.0.0")), lines.append)
    assert_whole(upstream.git_dir, toy.tree)
    assert upstream.source == "npm package pkg@1.0.0"
    assert lines[0] == "asking npm for pkg@1.0.0"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("absent@1.0.0", "npm view failed: 404 No match found for version"),
        ("empty@1.0.0", "it holds no file llama/x.bundle"),
        ("broken@1.0.0", "cannot be read as a git bundle"),
        ("../folder@1", "name@version"),
        ("pkg", "name@version"),
    ],
)
def test_npm_says_why(spec: str, why: str, fake_npm: Path, make_settings: MakeSettings, make_pin: MakePin) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        ensure_upstream(make_settings(), make_pin(npm(spec)))
    assert why in caught.value.message and f"npm package {spec}" in caught.value.message


def test_npm_missing(
    make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_git = tmp_path / "bin"
    only_git.mkdir()
    for tool in ("git", "env"):
        (only_git / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(only_git))
    with pytest.raises(EnvironmentProblem, match="npm is not installed"):
        ensure_upstream(make_settings(), make_pin(npm("pkg@1.0.0")))


# -- PyPI --------------------------------------------------------------------------------------------------------------


def sdist(toy: Toy, folder: Path, *, backend: str, metadata: bool = True) -> None:
    """``toy-binding 1.2.0`` with the toy vendored, whose build backend leaves a mark if it ever runs."""
    mark = folder / "ran"
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nraise SystemExit('built')\n".encode()
    files = {
        "pyproject.toml": f'[build-system]\nrequires = ["no-such-requirement"]\n{backend}\n'.encode(),
        "backend/evil.py": code,
        "setup.py": code,
        # As in archives that were published from a clone with a submodule.
        ".git/FETCH_HEAD": b"",
        "vendor/toy/.git": b"gitdir: ../../.git/modules/vendor/toy\n",
        "PKG-INFO": b"Metadata-Version: 2.1\nName: toy-binding\nVersion: 1.2.0\nSummary: x\n\nName: other\n",
    }
    if not backend:
        del files["pyproject.toml"]
    if not metadata:
        del files["PKG-INFO"]
    folder.mkdir(exist_ok=True)
    members = [(info(f"toy_binding-1.2.0/{name}", mode=0o644), data) for name, data in files.items()]
    with tarfile.open(folder / "vendored.tar", "w") as tar:
        tar.close()
    archive(toy, folder / "vendored.tar", prefix="toy_binding-1.2.0/vendor/toy/")
    with tarfile.open(folder / "vendored.tar") as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            members.append((member, stream.read() if stream else b""))
    (folder / "vendored.tar").unlink()
    write_tar(folder / "toy_binding-1.2.0.tar.gz", *members)


def pypi(member: str = "vendor/toy", package: str = "toy-binding==1.2.0") -> Source:
    return Source(kind="pypi", package=package, member=member)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.mark.parametrize(
    "backend",
    [
        'build-backend = "evil"\nbackend-path = ["backend"]',
        'build-backend = "not.installed.build:api.main"',
        'build-backend = "setuptools.build_meta"',
        "",
    ],
    ids=["in-tree", "absent", "setuptools", "setup.py"],
)
def test_pypi_archive_without_running_its_code(
    backend: str, index: Path, toy: Toy, make_settings: MakeSettings, make_pin: MakePin
) -> None:
    sdist(toy, index, backend=backend)
    upstream = ensure_upstream(make_settings(), make_pin(pypi()))
    assert_whole(upstream.git_dir, toy.tree)
    assert upstream.source == "PyPI source archive toy-binding==1.2.0"
    assert not (index / "ran").exists()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (pypi(package="absent==1.0"), "Could not find a version"),
        (pypi(package="toy-binding==9"), "Could not find a version"),
        (pypi(package="toy-binding"), "name==version"),
        (pypi(package="--index-url=x"), "name==version"),
        (pypi(member="vendor/other"), "holds nothing under vendor/other"),
        (pypi(member="vendor"), "it holds tree"),
    ],
)
def test_pypi_says_why(
    source: Source, why: str, index: Path, toy: Toy, make_settings: MakeSettings, make_pin: MakePin
) -> None:
    sdist(toy, index, backend='build-backend = "x"')
    with pytest.raises((EnvironmentProblem, MismatchError)) as caught:
        ensure_upstream(make_settings(), make_pin(source))
    assert why in caught.value.message


def test_pypi_archive_without_metadata(index: Path, toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    sdist(toy, index, backend='build-backend = "x"', metadata=False)
    with pytest.raises(EnvironmentProblem, match="pip download failed"):
        ensure_upstream(make_settings(), make_pin(pypi()))
    assert not (index / "ran").exists()


# -- the list ----------------------------------------------------------------------------------------------------------


def test_sources_are_tried_in_order(toy: Toy, make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path) -> None:
    archive(toy, make_settings().home / "v2.tar", "v2")
    pin = make_pin(
        Source(kind="git", url="file:///nonexistent", ref="v1"),
        Source(kind="tarball", url="v2.tar"),
        Source(kind="git", url=toy.path.as_uri(), ref="v1"),
        Source(kind="tarball", url="never asked"),
    )
    lines: list[str] = []
    upstream = ensure_upstream(make_settings(), pin, lines.append)
    assert_whole(upstream.git_dir, toy.tree)
    told = [line for line in lines if line.startswith("no upstream from")]
    assert told[0].startswith("no upstream from git file:///nonexistent v1: ")
    assert told[1].startswith(f"no upstream from source archive v2.tar: it holds tree {toy.other_tree}, not {toy.tree}")
    assert "never asked" not in "".join(lines)
    # Nothing of the ones that failed is kept.
    assert not Git(upstream.git_dir).has_object(toy.other_tree)
    assert not (tmp_path / "cache/upstream-tmp").exists()


def test_all_fail(toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    archive(toy, make_settings().home / "v2.tar", "v2")
    dead = Source(kind="git", url="file:///nonexistent", ref="v1")
    with pytest.raises(EnvironmentProblem) as caught:
        ensure_upstream(make_settings(), make_pin(dead, Source(kind="tarball", url="absent.tar")))
    assert "any of its 2 sources: (1) git file:///nonexistent v1: " in caught.value.message
    assert "; (2) source archive absent.tar: there is no such file." in caught.value.message
    assert "\n" not in caught.value.message
    # One that does deliver, but another tree, is the graver news.
    for order in ((dead, Source(kind="tarball", url="v2.tar")), (Source(kind="tarball", url="v2.tar"), dead)):
        with pytest.raises(MismatchError, match=toy.other_tree):
            ensure_upstream(make_settings(), make_pin(*order))


def test_the_cache_needs_no_source(toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    first = ensure_upstream(make_settings(), make_pin())
    shutil.rmtree(toy.path)
    assert ensure_upstream(make_settings(), make_pin()) == first
