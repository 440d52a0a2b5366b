"""What is shipped: the wheel and the source archive hold what git holds, and work from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from llamapatch import __version__

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
DATA = ("patches", "templates", "ggml_kernels", "ci")
SHARED_CACHE = os.environ.get("LLAMAPATCH_CACHE")


def versioned(*folders: str) -> set[str]:
    """What git would commit: tracked files and new ones that are not ignored, as far as they exist."""
    command = [
        "git",
        "-C",
        str(CHECKOUT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *folders,
    ]
    listed = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    return {name for name in listed if name and (CHECKOUT / name).is_file()}


def succeed(command: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def new_venv(folder: Path, *, borrow: bool) -> Path:
    """A fresh environment; with `borrow` it finds this one's dependencies (not llamapatch itself, which is shipped)."""
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    if borrow:
        query = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        site = Path(subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip())
        # A folder that a .pth file adds comes last, and its own .pth files (an editable llamapatch's) are not read.
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n")
    return python


@dataclass(frozen=True)
class Shipped:
    """Both archives, and the wheel that pip makes of the source archive."""

    wheel: Path
    sdist: Path
    wheel_of_sdist: Path


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    work = tmp_path_factory.mktemp("ship")
    source = work / "source"
    for name in versioned():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target)
    # What working in a checkout leaves behind must not be shipped, not even without a git repository to ask.
    for litter in ("ggml_kernels/build-kernels/x.o", "ci/__pycache__/x.pyc", ".llamapatch/store.git/HEAD"):
        (source / litter).parent.mkdir(parents=True, exist_ok=True)
        (source / litter).write_text("litter")
    python = new_venv(work / "tools", borrow=False)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "hatchling"], check=True)
    subprocess.run([python, "-m", "hatchling", "build", "-t", "sdist", "-d", work / "sdist"], cwd=source, check=True)
    sdist = next((work / "sdist").glob("*.tar.gz"))
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*wheel, "--wheel-dir", work / "wheel", "."], cwd=source, check=True)
    subprocess.run([*wheel, "--wheel-dir", work / "again", sdist], cwd=work, check=True)
    return Shipped(next((work / "wheel").glob("*.whl")), sdist, next((work / "again").glob("*.whl")))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def test_wheel_holds_what_git_holds(shipped: Shipped) -> None:
    held = contents(shipped.wheel)
    wanted = {name: name for name in versioned("llamapatch")}
    wanted |= {f"llamapatch/_data/{name}": name for name in versioned(*DATA)}
    assert set(held) == set(wanted)
    assert [name for name in wanted if held[name] != (CHECKOUT / wanted[name]).read_bytes()] == []
    assert "llamapatch/_data/patches/series.toml" in held
    assert [name for name in held if name.startswith("llamapatch/models/reference/") and name.endswith(".gguf")]


def test_scripts_stay_executable(shipped: Shipped) -> None:
    scripts = [name for name in versioned(*DATA) if os.access(CHECKOUT / name, os.X_OK)]
    assert scripts
    with zipfile.ZipFile(shipped.wheel) as archive:
        for name in scripts:
            assert archive.getinfo(f"llamapatch/_data/{name}").external_attr >> 16 & 0o100, name


def test_source_archive_makes_the_same_wheel(shipped: Shipped) -> None:
    assert contents(shipped.wheel_of_sdist) == contents(shipped.wheel)
    with tarfile.open(shipped.sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "tests/packaging/test_wheel.py"} <= names
    assert not [name for name in names if "litter" in name or name.startswith((".llamapatch", ".git/"))]


@dataclass(frozen=True)
class Installed:
    """A wheel in a fresh environment; `run` starts its console script in a folder with a home of its own."""

    python: Path
    package: Path
    home: Path

    def run(self, cwd: Path, *args: str, cache: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {"LLAMAPATCH_CACHE": cache or str(self.home / "cache")}
        # The console script as pip made it, from an environment that is not activated.
        command = [str(self.python.parent / "llamapatch"), *args]
        return succeed(command, cwd, env)


@pytest.fixture(scope="module")
def installed(shipped: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    work = tmp_path_factory.mktemp("fresh")
    python = new_venv(work / "venv", borrow=True)
    install = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps", shipped.wheel]
    subprocess.run(install, check=True)
    query = [str(python), "-c", "import llamapatch; print(llamapatch.__path__[0])"]
    env = {"PATH": os.environ["PATH"]}
    found = subprocess.run(query, check=True, capture_output=True, text=True, cwd=work, env=env).stdout.strip()
    package = Path(found)
    assert package.is_relative_to(work / "venv")
    for path in (package, *package.rglob("*")):
        path.chmod(0o555 if path.is_dir() else path.stat().st_mode & 0o555)
    (work / "home").mkdir()
    return Installed(python, package, work / "home")


def states(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(p): p.lstat() for p in (folder, *folder.rglob("*"))}
    return {name: (stat.st_mode, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def test_installed_wheel_works_in_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    """`--version`, `list`, `show`, `init` in it; the package is read-only and stays as it was, root or not."""
    before = states(installed.package)
    empty = tmp_path / "an empty folder"
    empty.mkdir()
    assert installed.run(empty, "--version").stdout == f"llamapatch, version {__version__}\n"
    listed = json.loads(installed.run(empty, "list", "--json").stdout)
    assert "foundation" in json.dumps(listed)
    assert "foundation" in installed.run(empty, "list").stdout
    assert "foundation" in installed.run(empty, "show", "foundation").stdout
    assert list(empty.iterdir()) == []

    installed.run(empty, "init", "mine")
    mine = empty / "mine"
    for name in versioned("patches", "ggml_kernels"):
        assert (mine / name).read_bytes() == (CHECKOUT / name).read_bytes()
    assert all(path.stat().st_mode & 0o200 for path in (mine, *mine.rglob("*"))), "a copy to edit must be writable"
    # Inside it, the copy is the series.
    toml = mine / "patches" / "series.toml"
    toml.write_text(toml.read_text().replace('title = "Foundation"', 'title = "Mine"'))
    assert "Mine" in installed.run(mine, "list", "--json").stdout
    assert "Mine" not in installed.run(empty, "list", "--json").stdout
    assert states(installed.package) == before


@pytest.mark.upstream
def test_installed_wheel_applies_the_series(installed: Installed, tmp_path: Path) -> None:
    before = states(installed.package)
    done = json.loads(installed.run(tmp_path, "apply", "--json", cache=SHARED_CACHE).stdout)
    assert "foundation" in done["applied"]
    assert done["how"] == "exact"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".llamapatch"]
    assert states(installed.package) == before


def test_reference_model_travels(installed: Installed) -> None:
    code = "from llamapatch.models.reference import reference_model; print(reference_model())"
    env = {"PATH": os.environ["PATH"], "HOME": str(installed.home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = succeed([str(installed.python), "-c", code], installed.home, env)
    model = Path(done.stdout.strip())
    assert model.is_relative_to(installed.package)
    assert model.read_bytes()[:4] == b"GGUF"


def test_checkout_works_without_installation(tmp_path: Path) -> None:
    """The series of a checkout is the checkout's own, whatever the current folder."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LLAMAPATCH_")}
    env |= {"PYTHONPATH": str(CHECKOUT), "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    for cwd in (tmp_path, CHECKOUT):
        command = [sys.executable, "-m", "llamapatch"]
        version = subprocess.run([*command, "--version"], cwd=cwd, env=env, check=True, capture_output=True, text=True)
        assert version.stdout == f"llamapatch, version {__version__}\n"
        shown = subprocess.run(
            [*command, "show", "foundation", "--json"], cwd=cwd, env=env, check=True, capture_output=True, text=True
        )
        assert json.loads(shown.stdout)["meta"]["id"] == "foundation"
    assert list(tmp_path.iterdir()) == []
