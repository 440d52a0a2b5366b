"""Which CUDA is taken, on machines made of shell scripts; the real compiler is in test_upstream.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llamapatch.build import cuda
from llamapatch.build.cuda import choose_cuda, explain_choice, prepare_cuda, probe_cuda
from llamapatch.errors import EnvironmentProblem, UsageProblem


def toolkit(root: Path, *, cublas: bool, version: str = "13.0", plain_names: bool = True, driver: bool = False) -> Path:
    """A folder that looks like a CUDA toolkit; its nvcc answers --version and --dryrun."""
    (root / "bin").mkdir(parents=True)
    (root / "include").mkdir()
    (root / "lib").mkdir()
    nvcc = root / "bin" / "nvcc"
    nvcc.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && {{ echo "Cuda compilation tools, release {version}, V{version}.88"; exit 0; }}\n'
        f'echo "#\\$ TOP={root}/bin/.." >&2\n'
    )
    nvcc.chmod(0o755)
    (root / "include" / "cuda_runtime.h").touch()
    ending = ".so" if plain_names else ".so.13"
    (root / "lib" / f"libcudart{ending}").touch()
    if cublas:
        (root / "include" / "cublas_v2.h").touch()
        (root / "lib" / f"libcublas{ending}").touch()
        (root / "lib" / f"libcublasLt{ending}").touch()
    if driver:
        (root / "lib" / "stubs").mkdir()
        (root / "lib" / "stubs" / "libcuda.so").touch()
    return root


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No CUDA but what a test makes."""
    for name in ("CUDACXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cuda, "_LAST_RESORT", str(tmp_path / "nowhere"))
    monkeypatch.setattr(cuda, "wheel_roots", list)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


def test_nothing_found() -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        choose_cuda(probe_cuda())
    assert "pip install 'llamapatch[cuda]'" in caught.value.remedy


def test_complete_system_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = toolkit(tmp_path / "cuda", cublas=True, driver=True)
    monkeypatch.setenv("CUDA_HOME", str(root))
    chosen = choose_cuda(probe_cuda())
    assert (chosen.origin, chosen.root, chosen.version) == ("system", root, "13.0")
    setup = prepare_cuda(chosen, tmp_path / "build", "90")
    assert setup.variables == {"CMAKE_CUDA_COMPILER": str(root / "bin/nvcc"), "CUDAToolkit_ROOT": str(root)}
    assert setup.environment == {}


def test_wrapper_script_leads_to_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = toolkit(tmp_path / "cuda", cublas=True)
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {root}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    assert [t.nvcc for t in probe_cuda()] == [root / "bin/nvcc"]


def test_system_without_cublas_yields_to_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = toolkit(tmp_path / "cuda", cublas=False, version="12.8")
    wheels = toolkit(tmp_path / "nvidia" / "cu13", cublas=True, plain_names=False)
    monkeypatch.setenv("CUDA_HOME", str(system))
    monkeypatch.setattr(cuda, "wheel_roots", lambda: [wheels])
    found = probe_cuda()
    chosen = choose_cuda(found)
    assert chosen.origin == "wheels"
    assert explain_choice(found, chosen) == (
        f"CUDA 13.0 from {wheels} ({system} has nvcc 12.8 but lacks cuBLAS headers, cuBLAS library, cuBLASLt library)"
    )
    setup = prepare_cuda(chosen, tmp_path / "build", "80;90")
    links = tmp_path / "build" / "cuda-libs"
    assert {p.name for p in links.iterdir()} == {
        f"{stem}{ending}" for stem in ("libcudart", "libcublas", "libcublasLt") for ending in (".so", ".so.13")
    }
    assert (links / "libcublas.so").resolve() == wheels / "lib" / "libcublas.so.13"
    assert setup.variables["CMAKE_LIBRARY_PATH"] == str(links)
    assert setup.variables["GGML_CUDA_NO_VMM"] == "ON"
    assert setup.environment == {"NVCC_APPEND_FLAGS": f"-L{wheels / 'lib'}"}
    assert setup.architectures == "80;90"


def test_links_follow_the_wheels(tmp_path: Path) -> None:
    lib, links = tmp_path / "lib", tmp_path / "links"
    lib.mkdir()
    (lib / "libcudart.so.13").touch()
    cuda.link_libraries(lib, links)
    (lib / "libcudart.so.13").rename(lib / "libcudart.so.14")
    cuda.link_libraries(lib, links)
    assert {p.name: p.resolve().name for p in links.iterdir()} == {
        "libcudart.so": "libcudart.so.14",
        "libcudart.so.14": "libcudart.so.14",
    }


def test_only_incomplete_ones_names_what_each_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path / "cuda", cublas=False)))
    with pytest.raises(EnvironmentProblem, match=re.escape("(system, nvcc 13.0) lacks cuBLAS headers")):
        choose_cuda(probe_cuda())


def test_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.choose_architectures("90") == "90"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageProblem, match="no NVIDIA GPU"):
        cuda.choose_architectures("")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 9.0\necho 12.0\necho 9.0\n")
    smi.chmod(0o755)
    assert cuda.choose_architectures("") == "90;120"
