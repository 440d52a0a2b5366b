"""Where CUDA comes from: the system's toolkit when it is complete, else the wheels of the `cuda` extra.

Upstream needs the compiler, the runtime, CCCL (in every toolkit since 12) and cuBLAS. Distributions and containers
often ship ``nvcc`` without cuBLAS headers; the wheels of ``pip install 'llamapatch[cuda]'`` bring all of it, in
``site-packages/nvidia/cu13``, but without the plain library names (``libcublas.so``) that linkers ask for and without
a stub of the driver. Both are made good here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from llamapatch.build.toolchain import probe
from llamapatch.errors import EnvironmentProblem, UsageProblem
from llamapatch.process import run

EXTRA = "Install the wheels beside llamapatch: `pip install 'llamapatch[cuda]'`."
# What upstream's FindCUDAToolkit and its sources need, by the file that proves each.
_HEADERS = {"runtime": "cuda_runtime.h", "cuBLAS": "cublas_v2.h"}
_LIBRARIES = {"runtime": "libcudart", "cuBLAS": "libcublas", "cuBLASLt": "libcublasLt"}

# Where NVIDIA's installers put it, on PATH or not.
_LAST_RESORT = "/usr/local/cuda/bin/nvcc"


@dataclass(frozen=True)
class CudaToolkit:
    """A CUDA installation. `origin` is ``system`` or ``wheels``; `missing` names what upstream's build lacks in it."""

    origin: str
    nvcc: Path
    version: str
    root: Path
    include: Path | None
    lib: Path | None
    missing: tuple[str, ...]
    has_driver: bool

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def identity(self) -> str:
        """Changes when the toolkit does."""
        return f"{self.nvcc} {self.version}"


@dataclass(frozen=True)
class CudaSetup:
    """What a build needs to use a toolkit: CMake cache variables, environment, architectures (a CMake list)."""

    toolkit: CudaToolkit
    architectures: str
    variables: dict[str, str]
    environment: dict[str, str]


def probe_cuda() -> list[CudaToolkit]:
    """Every CUDA installation found, those of the system first."""
    found: dict[Path, CudaToolkit] = {}
    for program in _system_compilers():
        toolkit = _inspect("system", program)
        if toolkit is not None:
            found.setdefault(toolkit.root, toolkit)
    for root in wheel_roots():
        toolkit = _inspect("wheels", root / "bin" / "nvcc")
        if toolkit is not None:
            found.setdefault(toolkit.root, toolkit)
    return list(found.values())


def choose_cuda(found: list[CudaToolkit]) -> CudaToolkit:
    """The first complete toolkit of `probe_cuda`; raises `EnvironmentProblem` saying what each one lacks."""
    for toolkit in found:
        if toolkit.complete:
            return toolkit
    if not found:
        raise EnvironmentProblem("no CUDA compiler: nvcc is neither on PATH nor among the installed wheels.", EXTRA)
    lacking = "; ".join(f"{t.root} ({t.origin}, nvcc {t.version}) lacks {', '.join(t.missing)}" for t in found)
    raise EnvironmentProblem(f"no complete CUDA toolkit: {lacking}.", EXTRA)


def explain_choice(found: list[CudaToolkit], chosen: CudaToolkit) -> str:
    """One line: what is used, and why an earlier candidate is not."""
    passed = [t for t in found[: found.index(chosen)] if not t.complete]
    reason = "".join(f" ({t.root} has nvcc {t.version} but lacks {', '.join(t.missing)})" for t in passed)
    return f"CUDA {chosen.version} from {chosen.root}{reason}"


def prepare_cuda(toolkit: CudaToolkit, folder: Path, architectures: str) -> CudaSetup:
    """Make `toolkit` usable for a build in `folder` (where a folder of library links may be created)."""
    variables = {"CMAKE_CUDA_COMPILER": str(toolkit.nvcc), "CUDAToolkit_ROOT": str(toolkit.root)}
    environment: dict[str, str] = {}
    if toolkit.origin == "wheels":
        assert toolkit.lib is not None
        links = folder / "cuda-libs"
        link_libraries(toolkit.lib, links)
        variables["CMAKE_LIBRARY_PATH"] = str(links)
        # CMake's compiler test links with nvcc itself, which does not look where the wheels put cudart and cudadevrt.
        environment["NVCC_APPEND_FLAGS"] = f"-L{toolkit.lib}"
    if not toolkit.has_driver:
        # Virtual memory management calls the driver directly; without libcuda there is nothing to link with.
        variables["GGML_CUDA_NO_VMM"] = "ON"
    return CudaSetup(toolkit, architectures, variables, environment)


def link_libraries(lib: Path, links: Path) -> None:
    """Fill `links` with every shared library of `lib`, under its own name and without the version.

    The versioned names are what the built programs ask for at run time, the plain ones what the linker asks for.
    """
    wanted: dict[str, Path] = {}
    for library in sorted(lib.glob("lib*.so*")):
        wanted[library.name] = library
        wanted.setdefault(library.name.split(".so")[0] + ".so", library)
    links.mkdir(parents=True, exist_ok=True)
    for entry in links.iterdir():
        if entry.name not in wanted:
            entry.unlink()
    for name, library in wanted.items():
        link = links / name
        if not link.is_symlink() or link.readlink() != library:
            link.unlink(missing_ok=True)
            link.symlink_to(library)


def gpu_architectures() -> tuple[str, ...]:
    """The compute capabilities of this machine's GPUs (``("90",)``), empty without any."""
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        done = run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
            check=False,
            timeout=30,
        )
    except EnvironmentProblem:
        return ()
    if done.code != 0:
        return ()
    found = re.findall(r"^\s*(\d+)\.(\d)\s*$", done.stdout, re.MULTILINE)
    return tuple(dict.fromkeys(f"{major}{minor}" for major, minor in found))


def choose_architectures(asked: str) -> str:
    """What was asked for, else this machine's GPUs; raises `UsageProblem` when there is neither."""
    if asked:
        return asked
    present = gpu_architectures()
    if not present:
        raise UsageProblem(
            "this machine shows no NVIDIA GPU whose architecture could be taken.",
            "Name one: --cuda-arch 90 (Hopper), 89 (Ada), 86 or 80 (Ampere).",
        )
    return ";".join(present)


def wheel_roots() -> list[Path]:
    """The toolkit folders of installed wheels (``site-packages/nvidia/cu13``), newest CUDA first."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    roots = [r for f in folders for r in Path(f).glob("cu[0-9]*") if (r / "bin" / "nvcc").is_file()]
    return sorted(roots, key=lambda r: int(re.sub(r"\D", "", r.name)), reverse=True)


def _system_compilers() -> list[str]:
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = [os.environ.get("CUDACXX"), *(f"{home}/bin/nvcc" for home in homes if home), "nvcc"]
    return [c for c in (*candidates, _LAST_RESORT) if c]


def _inspect(origin: str, program: str | Path) -> CudaToolkit | None:
    tool = probe("nvcc", program)
    if tool is None:
        return None
    dry = run([tool.path, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull], check=False, timeout=30)
    # nvcc may be a wrapper script or a link; where it stands is what it says.
    top = re.search(r"^#\$ TOP=(.+)$", dry.stderr, re.MULTILINE)
    root = Path(top.group(1)).resolve() if top else tool.path.resolve().parent.parent
    release = re.search(r"release (\d+\.\d+)", _version_text(tool.path))
    includes = _existing(root / "include", *root.glob("targets/*/include"), *_flags(dry.stderr, "I"))
    libs = _existing(root / "lib64", root / "lib", *root.glob("targets/*/lib"), *_flags(dry.stderr, "L"))
    if root.parts[:2] == ("/", "usr") and "local" not in root.parts:
        includes += _existing(Path("/usr/include"))
        libs += _existing(*Path("/usr/lib").glob("*-linux-gnu"), Path("/usr/lib64"))
    missing = [f"{what} headers" for what, name in _HEADERS.items() if not _holding(includes, name)]
    for what, stem in _LIBRARIES.items():
        pattern = f"{stem}.so*" if origin == "wheels" else f"{stem}.so"
        if not any(True for folder in libs for _ in folder.glob(pattern)):
            missing.append(f"{what} library")
    own = root / "bin" / "nvcc"
    return CudaToolkit(
        origin=origin,
        nvcc=own if own.is_file() else tool.path,
        version=release.group(1) if release else tool.version,
        root=root,
        include=_holding(includes, "cuda_runtime.h"),
        lib=_holding(libs, "libcudart*"),
        missing=tuple(missing),
        has_driver=any((folder / "stubs" / "libcuda.so").exists() for folder in libs),
    )


def _version_text(nvcc: Path) -> str:
    return run([nvcc, "--version"], check=False, timeout=30).stdout


def _flags(dryrun: str, letter: str) -> list[Path]:
    return [Path(p) for p in re.findall(rf'"-{letter}([^"]+)"', dryrun)]


def _existing(*folders: Path) -> list[Path]:
    return [f for f in folders if f.is_dir()]


def _holding(folders: list[Path], pattern: str) -> Path | None:
    return next((f for f in folders if any(f.glob(pattern))), None)
