"""``drift``: a dry rebase onto one or more upstreams, and numeric ids that collide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamapatch.tree.registry import members
from tests.project import Project, git
from tests.rebase.toy import on_disk, release

GGML_H = """\
enum ggml_type {
    GGML_TYPE_F32 = 0,
    GGML_TYPE_Q4_0 = 2,
    GGML_TYPE_Q8_0, // follows
    // GGML_TYPE_OLD = 4, gone
    GGML_TYPE_COUNT = 5,
};

enum ggml_op {
    GGML_OP_NONE = 0,
    GGML_OP_ADD,
    GGML_OP_MUL,

    GGML_OP_COUNT,
};
"""
GGML_C = 'static const char * names[] = { "NONE", "ADD", "MUL" };\n\nstatic_assert(GGML_OP_COUNT == 3, "GGML_OP_COUNT != 3");\n'
FILES = {
    "ggml/include/ggml.h": GGML_H,
    "ggml/src/ggml.c": GGML_C,
    "README.md": "# llama.cpp\n",
    "include/llama.h": "enum llama_ftype {\n    LLAMA_FTYPE_ALL_F32 = 0,\n    LLAMA_FTYPE_MOSTLY_F16 = 1,\n};\n",
}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    """A patch that adds a type, and one that adds an operation."""
    from tests.project import make_upstream

    upstream = make_upstream(tmp_path / "llama.cpp", FILES)
    git(upstream, "tag", "v0.5.0")
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("LLAMAPATCH_CACHE", str(tmp_path / "cache"))
    project = Project(tmp_path / "project", upstream, capsys)
    project.patch(
        "new-type",
        replace={
            "ggml/include/ggml.h": ("    GGML_TYPE_COUNT = 5,\n", "    GGML_TYPE_LP = 5,\n    GGML_TYPE_COUNT = 6,\n")
        },
        more="[registry]\nLLAMA_FTYPE_MOSTLY_LP = 2\n",
    )
    project.patch(
        "new-op",
        replace={
            "ggml/include/ggml.h": ("    GGML_OP_ADD,\n", "    GGML_OP_LP,\n    GGML_OP_ADD,\n"),
            "ggml/src/ggml.c": ('GGML_OP_COUNT == 3, "GGML_OP_COUNT != 3"', 'GGML_OP_COUNT == 4, "GGML_OP_COUNT != 4"'),
        },
    )
    assert project.run("lock").code == 0
    return project


def test_members() -> None:
    assert members(GGML_H.encode()) == {
        "GGML_TYPE_F32": 0,
        "GGML_TYPE_Q4_0": 2,
        "GGML_TYPE_Q8_0": 3,
        "GGML_TYPE_COUNT": 5,
        "GGML_OP_NONE": 0,
        "GGML_OP_ADD": 1,
        "GGML_OP_MUL": 2,
        "GGML_OP_COUNT": 3,
    }


def test_clean(registry: Project) -> None:
    before = on_disk(registry)
    release(registry, "v0.6.0", edit={"README.md": "# llama\n"})
    result = registry.run("drift", "--onto", "v0.5.0", "--onto", "v0.6.0")
    assert result.code == 0, result.out
    trees = [git(registry.upstream, "rev-parse", f"{tag}^{{tree}}") for tag in ("v0.5.0", "v0.6.0")]
    assert [line.rstrip() for line in result.out.splitlines()] == [
        f"onto llama.cpp v0.5.0, tree {trees[0]}, 0 commits after the pin",
        "patch     status  files  hunks  what happened",
        "new-type  exact   1      1",
        "new-op    exact   2      2",
        "this is the pinned tree",
        "",
        f"onto llama.cpp v0.6.0, tree {trees[1]}, 1 commits after the pin",
        "patch     status  files  hunks  what happened",
        "new-type  exact   1      1",
        "new-op    exact   2      2",
        "v0.5.0 is 1 commits and 1 tags behind",
    ]
    assert on_disk(registry) == before
    assert not (registry.state / "trees").exists()


def test_ids_that_collide(registry: Project) -> None:
    """Everything merges without a conflict, and three things are wrong."""
    release(
        registry,
        "v0.6.0",
        replace={
            "ggml/include/ggml.h": ("    GGML_TYPE_F32 = 0,\n", "    GGML_TYPE_BF16 = 5,\n    GGML_TYPE_F32 = 0,\n"),
            "include/llama.h": (
                "    LLAMA_FTYPE_ALL_F32 = 0,\n",
                "    LLAMA_FTYPE_MOSTLY_BF16 = 2,\n    LLAMA_FTYPE_ALL_F32 = 0,\n",
            ),
        },
    )
    # The new operation comes with an assertion in another file, so that neither side touches the other's lines.
    release(
        registry,
        "v0.7.0",
        replace={"ggml/include/ggml.h": ("    GGML_OP_MUL,\n", "    GGML_OP_MUL,\n    GGML_OP_SUB,\n")},
        edit={"ggml/include/ggml-rpc.h": 'static_assert(GGML_OP_COUNT == 4, "");\n'},
    )
    result = registry.run("drift", "--onto", "v0.7.0", "--json")
    assert result.code == 3
    data = json.loads(result.out)
    assert (data["schema"], data["clean"], data["pin"]["version"]) == (1, False, "v0.5.0")
    (one,) = data["upstreams"]
    assert one["clean"] is False
    assert [(p["id"], p["status"]) for p in one["patches"]] == [("new-type", "merged"), ("new-op", "merged")]
    assert one["collisions"] == [
        {
            "patch": "new-type",
            "name": "GGML_TYPE_LP",
            "value": 5,
            "other": "upstream has GGML_TYPE_BF16 = 5",
        },
        {
            "patch": "new-type",
            "name": "LLAMA_FTYPE_MOSTLY_LP",
            "value": 2,
            "other": "upstream has LLAMA_FTYPE_MOSTLY_BF16 = 2",
        },
        {
            "patch": None,
            "name": "GGML_OP_COUNT",
            "value": 4,
            "other": "ggml/src/ggml.c asserts 4, the merged enum has 5",
        },
        {
            "patch": None,
            "name": "GGML_OP_COUNT",
            "value": 4,
            "other": "ggml/include/ggml-rpc.h asserts 4, the merged enum has 5",
        },
    ]
    text = registry.run("drift", "--onto", "v0.7.0").out.splitlines()
    assert text[-5:] == [
        "v0.5.0 is 2 commits and 2 tags behind",
        "id collision: new-type: GGML_TYPE_LP = 5: upstream has GGML_TYPE_BF16 = 5",
        "id collision: new-type: LLAMA_FTYPE_MOSTLY_LP = 2: upstream has LLAMA_FTYPE_MOSTLY_BF16 = 2",
        "id collision: GGML_OP_COUNT: ggml/src/ggml.c asserts 4, the merged enum has 5",
        "id collision: GGML_OP_COUNT: ggml/include/ggml-rpc.h asserts 4, the merged enum has 5",
    ]


def test_two_patches_with_one_number(registry: Project) -> None:
    registry.patch(
        "other", replace={"README.md": ("# llama.cpp\n", "# llama\n")}, more="[registry]\nGGML_TYPE_OTHER = 5\n"
    )
    assert registry.run("lock").code == 0
    result = registry.run("drift", "--onto", "v0.5.0")
    assert result.code == 3
    assert (
        result.out.splitlines()[-1] == "id collision: other: GGML_TYPE_OTHER = 5: `new-type` claims it for GGML_TYPE_LP"
    )


def test_markdown(registry: Project) -> None:
    release(
        registry, "v0.6.0", replace={"ggml/src/ggml.c": ('== 3, "GGML_OP_COUNT != 3"', '== 7, "GGML_OP_COUNT != 7"')}
    )
    result = registry.run("drift", "--onto", "v0.6.0", "--markdown")
    assert result.code == 3
    tree = git(registry.upstream, "rev-parse", "v0.6.0^{tree}")
    assert (
        result.out
        == f"""\
## Drift of the series on llama.cpp v0.5.0

* v0.6.0: **needs a person**; v0.5.0 is 1 commits and 1 tags behind

### onto llama.cpp v0.6.0

Tree `{tree}`, 1 commits after the pin.

| patch | status | files | hunks | what happened |
| --- | --- | --- | --- | --- |
| new-type | exact | 1 | 1 |  |
| new-op | conflict | 2 (1 changed) | 2 | ggml/src/ggml.c:3: both sides changed `static const char * names[] = {{ "NONE", "ADD", "MUL" }};` |

<details><summary>conflicts and relocations</summary>

```
new-op: ggml/src/ggml.c: conflict in `static const char * names[] = {{ "NONE", "ADD", "MUL" }};`
    upstream made line 3 of line 3
    <<<<<<< upstream
    static_assert(GGML_OP_COUNT == 7, "GGML_OP_COUNT != 7");
    ||||||| before
    static_assert(GGML_OP_COUNT == 3, "GGML_OP_COUNT != 3");
    =======
    static_assert(GGML_OP_COUNT == 4, "GGML_OP_COUNT != 4");
    >>>>>>> new-op
```

</details>

* id collision: GGML_OP_COUNT: ggml/src/ggml.c asserts 7, the merged enum has 3
"""
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "say what to compare with"),
        (["--onto", "v0.5.0", "--markdown", "--json"], 2, "--markdown and --json exclude each other."),
        (["--onto", "pypi:nonsense"], 2, "is no source"),
        (["--onto", "v9.9.9"], 1, "v9.9.9"),
    ],
)
def test_refusals(registry: Project, words: list[str], code: int, says: str) -> None:
    result = registry.run("drift", *words)
    assert (result.code, result.out) == (code, "")
    assert says in result.err
