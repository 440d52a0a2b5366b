"""Whole builds of the tiny project: what runs, what does not, what the binaries say, what an interruption leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from llamapatch.build import builder
from llamapatch.build.builder import Build, build
from llamapatch.build.ninja import BuildFailed
from llamapatch.build.source import PRESETS
from llamapatch.build.stamp import read_stamp
from llamapatch.build.toolchain import find_ccache
from llamapatch.config import Settings
from llamapatch.errors import DirtyError, EnvironmentProblem, ExitCode, UsageProblem
from tests.build.conftest import HOME, MakeVariant, options


def compiled(done: Build) -> list[str]:
    """The source files that were compiled, sorted; unity files by their number."""
    found = [re.search(r"Building \w+ object .*/([^/]+)\.o$", step) for step in done.steps]
    return sorted(match.group(1) for match in found if match)


def linked(done: Build) -> list[str]:
    return sorted(step.rsplit("/", 1)[-1] for step in done.steps if step.startswith("Linking"))


def says(done: Build) -> str:
    return subprocess.run([done.bin / "tiny-show"], capture_output=True, text=True, check=True).stdout.strip()


def files_of(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*")}


def test_first_build(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant("patched", "v0.5.0+lp.0123456789ab", ("foundation", "two"))
    before = files_of(variant.path)
    said: list[str] = []
    done = build(settings, variant, options(), said.append)
    assert says(done) == "v0.5.0+lp.0123456789ab 2 2 2"
    assert done.folder == settings.state / "build" / "patched"
    assert done.bin == done.folder / "bin"
    assert done.configured == "not built yet"
    assert said[0] == "patched: configuring (not built yet)"
    assert re.fullmatch(r"patched: \d+ steps in \d+ s", said[-1])
    assert files_of(variant.path) == before, "the worktree must stay clean"
    assert done.cpu_seconds > 0.05


def test_unchanged_build_does_nothing(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant()
    build(settings, variant, options())
    said: list[str] = []
    again = build(settings, variant, options(), said.append)
    assert (again.steps, again.configured) == ((), "")
    assert said == ["base: up to date"]
    assert again.cpu_seconds < 0.5


def test_one_kernel_changed(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant()
    build(settings, variant, options())
    (variant.path / "src/kernels/a.c").write_text("int kernel_a(int x) { return x + 41; }\n")
    done = build(settings, variant, options())
    assert compiled(done) == ["a.c"]
    assert done.configured == ""
    assert says(done) == "v0.5.0 0 42 2"


def test_another_series_state_recompiles_only_what_carries_it(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant("patched", "v0.5.0+lp.000000000000", ("one",))
    build(settings, variant, options())
    (variant.path / "src/kernels/b.c").write_text("int kernel_b(int x) { return x * 3; }\n")
    done = build(settings, replace(variant, label="v0.5.0+lp.111111111111", ids=("one", "two")), options())
    assert done.configured == "the series state changed from v0.5.0+lp.000000000000"
    assert compiled(done) == ["b.c", "llama.cpp"]
    assert says(done) == "v0.5.0+lp.111111111111 2 2 3"


def test_new_file_is_found_where_upstream_globbed_once(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant()
    build(settings, variant, options())
    (variant.path / "src/models/c.cpp").write_text("int model_c() { return 3; }\n")
    done = build(settings, variant, options())
    assert done.configured == "files were added or removed"
    assert len(compiled(done)) == 1
    assert b"model_c" in subprocess.run(["nm", "-D", done.bin / "libllama.so"], capture_output=True, check=True).stdout


def test_options_reconfigure_and_name_what_changed(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant()
    build(settings, variant, options())
    done = build(settings, variant, options(defines=("TINY_LOUD:BOOL=ON",)))
    assert done.configured == "-DTINY_LOUD changed"
    assert "llama.cpp" in compiled(done)
    back = build(settings, variant, options())
    assert back.configured == "-DTINY_LOUD changed"
    assert "TINY_LOUD:BOOL=OFF" in (back.folder / "out/CMakeCache.txt").read_text()


def test_flags_of_the_environment_count(
    settings: Settings, make_variant: MakeVariant, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = make_variant()
    build(settings, variant, options())
    monkeypatch.setenv("CXXFLAGS", "-DMINE")
    assert build(settings, variant, options()).configured == "CXXFLAGS changed"


def test_a_dollar_reaches_cmake_as_it_is(settings: Settings, make_variant: MakeVariant) -> None:
    done = build(settings, make_variant(), options(defines=("MINE=${sourceDir}/$env{HOME}",)))
    assert "MINE:STRING=${sourceDir}/$env{HOME}\n" in (done.folder / "out/CMakeCache.txt").read_text()


def test_moved_tree_starts_over(settings: Settings, make_variant: MakeVariant, tmp_path: Path) -> None:
    variant = make_variant()
    build(settings, variant, options())
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(variant.path, elsewhere)
    # An older file with other content: by its time alone, Ninja would keep the object.
    kernel = elsewhere / "src/kernels/a.c"
    kernel.write_text("int kernel_a(int x) { return x + 10; }\n")
    os.utime(kernel, (1, 1))
    done = build(settings, replace(variant, path=elsewhere), options())
    assert done.configured == f"the tree moved from {variant.path}"
    assert says(done) == "v0.5.0 0 11 2"


def test_presets_work_by_hand(settings: Settings, make_variant: MakeVariant) -> None:
    done = build(settings, make_variant(), options())
    from llamapatch.build.toolchain import find_cmake

    cmake = find_cmake().path
    shutil.rmtree(done.folder / "out")
    for argv in ([cmake, "--preset", "llamapatch"], [cmake, "--build", "--preset", "llamapatch"]):
        subprocess.run(argv, cwd=done.folder / "tree", check=True, capture_output=True)
    assert says(done) == "v0.5.0 0 2 2"
    presets = json.loads((done.folder / "tree" / PRESETS).read_text())
    assert presets["buildPresets"][0]["targets"] == ["tiny-show", "tiny-other"]
    assert presets["configurePresets"][0]["cacheVariables"]["CMAKE_BUILD_TYPE"]["value"] == "Release"


@pytest.mark.skipif(find_ccache() is None, reason="needs ccache")
def test_second_variant_comes_from_the_cache(settings: Settings, make_variant: MakeVariant, tmp_path: Path) -> None:
    build(settings, make_variant("base"), options())
    variant = make_variant("patched", "v0.5.0+lp.0123456789ab", ("one",))
    (variant.path / "src/kernels/a.c").write_text("int kernel_a(int x) { return x + 7; }\n")
    subprocess.run(["ccache", "--zero-stats"], check=True, capture_output=True)
    done = build(settings, variant, options())
    stats = subprocess.run(["ccache", "--print-stats"], check=True, capture_output=True, text=True).stdout
    count = {k: int(v) for k, v in (line.split("\t") for line in stats.splitlines())}
    hits = count["direct_cache_hit"] + count["preprocessed_cache_hit"]
    # The kernel and the file that carries the label; everything else, unity files included, is known.
    assert (hits, count["cache_miss"]) == (len(compiled(done)) - 2, 2)
    assert says(done) == "v0.5.0+lp.0123456789ab 1 8 2"


@pytest.mark.skipif(sys.platform != "linux", reason="ELF")
def test_libraries_can_be_swapped(settings: Settings, make_variant: MakeVariant) -> None:
    base = build(settings, make_variant("base"), options())
    patched = build(settings, make_variant("patched", "v0.5.0+lp.0123456789ab", ("one",)), options())
    env = os.environ | {"LD_LIBRARY_PATH": str(patched.bin)}
    out = subprocess.run([base.bin / "tiny-show"], env=env, capture_output=True, text=True, check=True).stdout
    assert out.startswith("v0.5.0+lp.0123456789ab 1")


def test_the_users_repository_is_not_asked(settings: Settings, make_variant: MakeVariant) -> None:
    settings.root.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", settings.root], check=True)
    variant = make_variant()
    (variant.path / ".git").write_text("gitdir: /nonexistent\n")
    done = build(settings, variant, options())  # its CMakeLists.txt fails when a git is offered
    assert not (done.folder / "tree" / ".git").exists()


def test_compile_error_shows_its_line(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant()
    build(settings, variant, options())
    kernel = variant.path / "src/kernels/a.c"
    kernel.write_text("int kernel_a(int x) { return x + nothing_here; }\n")
    with pytest.raises(BuildFailed) as caught:
        build(settings, variant, options())
    assert caught.value.exit_code == ExitCode.ERROR
    assert "building base failed at src/CMakeFiles/llama.dir/kernels/a.c.o" in caught.value.message
    assert "nothing_here" in caught.value.message
    assert str(caught.value.log) in caught.value.message
    assert "nothing_here" in caught.value.log.read_text()
    kernel.write_text("int kernel_a(int x) { return x + 2; }\n")
    assert says(build(settings, variant, options())) == "v0.5.0 0 3 2"


def test_cmake_error_shows_cmakes_words(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant()
    lists = variant.path / "CMakeLists.txt"
    whole = lists.read_text()
    lists.write_text(whole + 'message(FATAL_ERROR "the moon is down")\n')
    with pytest.raises(BuildFailed, match=r"configuring base failed(.|\n)*the moon is down"):
        build(settings, variant, options())
    lists.write_text(whole)
    done = build(settings, variant, options())
    assert done.configured == "the last configure step was interrupted"
    assert says(done) == "v0.5.0 0 2 2"


def test_unknown_target(settings: Settings, make_variant: MakeVariant) -> None:
    with pytest.raises(UsageProblem, match=r"base has no target `tiny-sho`\. The nearest is `tiny-show`"):
        build(settings, make_variant(), options(targets=("tiny-sho",)))


def test_file_in_place_of_a_link_is_kept(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant()
    done = build(settings, variant, options())
    mine = done.folder / "tree" / "CMakeLists.txt"
    mine.unlink()
    mine.write_text("my work")
    with pytest.raises(DirtyError, match=r"tree/CMakeLists.txt is no link"):
        build(settings, variant, options())
    assert mine.read_text() == "my work"


def test_not_a_tree(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant()
    (variant.path / "CMakeLists.txt").unlink()
    with pytest.raises(UsageProblem, match=r"no CMakeLists\.txt"):
        build(settings, variant, options())


def test_no_space(settings: Settings, make_variant: MakeVariant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(builder.SPACE_NEEDED, False, 1e18)
    with pytest.raises(EnvironmentProblem, match=r"needs about 1000000000.0 GB"):
        build(settings, make_variant(), options())


def test_a_second_build_of_a_variant_is_refused(settings: Settings, make_variant: MakeVariant) -> None:
    variant = make_variant()
    folder = settings.state / "build" / "base"
    folder.mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path; from llamapatch.build.builder import hold_lock\n"
        "from llamapatch.locks import working_as; working_as('build base')\n"
        "with hold_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DirtyError) as caught:
            build(settings, variant, options())
        assert caught.value.message.startswith(f"a build in {folder} is running, pid {holder.pid} (`build base`, pid ")
        assert not (folder / "out").exists()
        holder.kill()
    # Killed, it holds nothing any more.
    assert build(settings, variant, options()).steps


_INTERRUPTIBLE = """\
import sys
from pathlib import Path
from llamapatch.build.builder import BuildOptions, build
from llamapatch.config import Settings
from llamapatch.tree.variants import Variant
root, home, tree = map(Path, sys.argv[1:])
settings = Settings(root=root, home=home, cache=root, upstream=None, jobs=2)
variant = Variant("base", (), "c" * 40, "d" * 40, tree, "v0.5.0")
build(settings, variant, BuildOptions(targets=("tiny-show", "tiny-other")))
"""


def wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_interrupted_build_stops_its_compilers_and_goes_on(
    settings: Settings, make_variant: MakeVariant, tmp_path: Path
) -> None:
    variant = make_variant()
    mark = tmp_path / "compiling"
    lists = variant.path / "src/CMakeLists.txt"
    whole = lists.read_text()
    # A step that writes half of its output and then takes its time.
    slow = (
        "add_custom_command(OUTPUT slow.c COMMAND sh -c \"echo 'int broken(' > slow.c; echo $$ > "
        f'{mark}; sleep 300" VERBATIM)\n'
    ).replace("$$", "\\$\\$")
    lists.write_text(slow + whole.replace("llama.cpp ${kernels}", "llama.cpp slow.c ${kernels}"))
    env = os.environ | {"PYTHONPATH": str(HOME)}
    argv = [sys.executable, "-c", _INTERRUPTIBLE, settings.root, HOME, variant.path]
    child = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: mark.is_file() and mark.read_text().strip())
    slow_pid = int(mark.read_text())
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert not psutil.pid_exists(slow_pid) or psutil.Process(slow_pid).status() == psutil.STATUS_ZOMBIE
    assert not (settings.state / "build/base/out/src/slow.c").exists(), "a half-written output must not stay"
    lists.write_text(whole)
    done = build(settings, variant, options())
    assert says(done) == "v0.5.0 0 2 2"


def test_killed_while_configuring(settings: Settings, make_variant: MakeVariant, tmp_path: Path) -> None:
    variant = make_variant()
    build(settings, variant, options())
    lists = variant.path / "CMakeLists.txt"
    whole = lists.read_text()
    mark = tmp_path / "configuring"
    lists.write_text(whole + f"file(WRITE {mark} yes)\nexecute_process(COMMAND sleep 300)\n")
    (variant.path / "new.txt").write_text("changes the file list")
    env = os.environ | {"PYTHONPATH": str(HOME)}
    child = subprocess.Popen([sys.executable, "-c", _INTERRUPTIBLE, settings.root, HOME, variant.path], env=env)
    wait_for(mark.is_file)
    cmakes = [p for p in psutil.Process(child.pid).children() if "cmake" in p.name()]
    child.kill()
    child.wait()
    for cmake in cmakes:
        for p in (*cmake.children(recursive=True), cmake):
            p.kill()
    lists.write_text(whole)
    done = build(settings, variant, options())
    assert done.configured == "the last configure step was interrupted"
    assert says(done) == "v0.5.0 0 2 2"
    stamp = read_stamp(done.folder / "stamp.json")
    assert stamp is not None
    assert stamp.setup["-DCMAKE_BUILD_TYPE"] == "Release"
