"""The model and the text of a comparison: checked, hashed, and made where they are not given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import InternalError, NotMeasured, UsageProblem
from llamapatch.measure.arms import Arm
from llamapatch.measure.runs import RunFolder, failed
from llamapatch.models.corpus import BlobReader, read_evaluation_text
from llamapatch.models.files import whole_file
from llamapatch.models.gguf_file import read_gguf, sha256_of
from llamapatch.models.synth import read_vocabulary, write_synthetic

QUANTIZE = "llama-quantize"
UNQUANTISED = ("F16", "")


@dataclass(frozen=True)
class ModelFile:
    """A GGUF that is measured: `type` as llama-quantize names it ("as given" for a user's file), `source_sha256` of
    what it was quantised from."""

    path: Path
    name: str
    type: str
    sha256: str
    bytes: int
    source_sha256: str


@dataclass(frozen=True)
class TextFile:
    """A text that is evaluated; `name` says where it comes from."""

    path: Path
    name: str
    sha256: str
    bytes: int


def given_model(path: Path) -> ModelFile:
    """A user's GGUF as it is; raises `UsageProblem` when it is none, or holds no weights."""
    head = read_gguf(path)
    if not head.tensors:
        raise UsageProblem(f"{path} holds a vocabulary but no weights.", "Give a model that can run.")
    digest = sha256_of(path)
    return ModelFile(path.resolve(), str(head.get("general.name") or path.stem), "as given", digest, head.size, digest)


def quantised_model(folder: RunFolder, base: Arm, source: ModelFile, type_name: str, cache: Path) -> ModelFile:
    """`source` quantised with the unpatched build's ``llama-quantize --pure``, from `cache` when it is there.

    The cache's key is the source's hash, the type, and the build that quantises. Raises `UsageProblem` for a type that
    llama-quantize does not know.
    """
    if type_name.upper() in UNQUANTISED:
        return ModelFile(source.path, source.name, "F16", source.sha256, source.bytes, source.source_sha256)
    cache.mkdir(parents=True, exist_ok=True)
    maker = hashlib.sha256(f"{base.label}\n{base.commit}".encode()).hexdigest()[:8]
    path = cache / f"{source.sha256[:16]}-{type_name}-{maker}.gguf"
    if not path.is_file():
        with whole_file(path) as part:
            args = ["--pure", str(source.path), str(part), type_name]
            run = folder.launch(base, base.tool(QUANTIZE), args)
            said = run.done.stdout + run.done.stderr
            if "invalid ftype" in said:
                raise UsageProblem(
                    f"llama-quantize knows no type `{type_name}`.", "Mend [gate] model_type in patch.toml."
                )
            if run.done.code != 0 or not part.is_file():
                raise failed(run, f"did not quantise {source.path.name} to {type_name}")
            try:
                head = read_gguf(part)
            except UsageProblem as error:
                raise NotMeasured(f"llama-quantize to {type_name} wrote a broken file: {error.message}") from error
            if not head.tensors:
                raise failed(run, "wrote a file without tensors")
    return ModelFile(path, source.name, type_name, sha256_of(path), path.stat().st_size, source.sha256)


def given_text(path: Path) -> TextFile:
    """A user's text; raises `UsageProblem` when it is missing, empty or not UTF-8."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageProblem(f"cannot read the text {path}: {error.strerror}.", "Give a plain text file.") from error
    if not raw.strip():
        raise UsageProblem(f"{path} is empty.", "Give a text of at least two windows of 512 tokens.")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path} is no UTF-8 text (byte {error.start}).", "Convert it to UTF-8.") from error
    return TextFile(path.resolve(), path.name, hashlib.sha256(raw).hexdigest(), len(raw))


def evaluation_text(git: BlobReader, tree: str, cache: Path) -> TextFile:
    """The held-out files of the upstream tree, extracted once into `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"evaluation-{tree[:16]}.txt"
    if not path.is_file():
        text = read_evaluation_text(git, tree)
        if not text.strip():
            raise InternalError(f"tree {tree} holds no evaluation text.")
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
    raw = path.read_bytes()
    return TextFile(path, "held-out files of the upstream tree", hashlib.sha256(raw).hexdigest(), len(raw))


def cut_prompt(text: TextFile, size: int, folder: RunFolder) -> Path:
    """The first `size` bytes of the text (whole characters) as a file of the run folder."""
    with text.path.open("rb") as file:
        head = file.read(size).decode("utf-8", "ignore").rstrip()
    path = folder.path / "prompt.txt"
    path.write_text(head, encoding="utf-8", newline="\n")
    return path


def vocabulary_model(cache: Path, git: BlobReader, tree: str, report: Callable[[str], None] | None = None) -> Path:
    """A nearly empty model with a real vocabulary of 128,256 tokens, for benchmarks of sampling."""
    return synthetic_model(cache, "vocab-128k", "f16", git, tree, report).path


def synthetic_model(
    cache: Path, shape: str, type_name: str, git: BlobReader, tree: str, report: Callable[[str], None] | None = None
) -> ModelFile:
    """Random weights in a real architecture's shape; made once in `cache`, with the vocabulary of upstream's own
    vocabulary-only GGUF in `tree`."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"synthetic-{shape}-{type_name}.gguf"
    if not path.is_file():
        vocabulary = cache / f"vocabulary-{path.stem}.gguf"
        try:
            read_vocabulary(git, tree, vocabulary)
            write_synthetic(path, shape, type_name, vocab_gguf=vocabulary, seed=0, report=report)
        finally:
            vocabulary.unlink(missing_ok=True)
    digest = sha256_of(path)
    return ModelFile(path, f"synthetic {shape}", type_name, digest, path.stat().st_size, digest)
