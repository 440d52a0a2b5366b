"""Places that look alike: what a patch changes, what upstream did meanwhile, and what a careful person would make of it.

Each case is a file before (`pre`), the file with the patch (`post`), upstream's new file (`now`) and `want`, the one
right result; None where nobody can know it from the text, so that anything but a stop is a guess. Written for this
suite, after what goes wrong in ggml: dispatch functions with equal tails, type tables, switch arms, enums, macros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PATH = "src/kernel.cpp"


@dataclass(frozen=True)
class Case:
    """`hard`: plain tools are tempted to put the change into the wrong place. `benign`: a drifted tree on which the
    change has one place that anybody would find. `moved_to`: the path that upstream moved the file to."""

    name: str
    kind: Literal["hard", "benign"]
    pre: str
    post: str
    now: str
    want: str | None
    moved_to: str = PATH


def sub(text: str, *pairs: tuple[str, str]) -> str:
    """Replace passages that occur exactly once."""
    for old, new in pairs:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times in\n{text}"
        text = text.replace(old, new)
    return text


def function(name: str, body: str = "    return 1;\n", args: str = "int n") -> str:
    """The shape that mmvq.cu has a dozen times."""
    return f"static int {name}({args}) {{\n    if (n > 8) {{\n        return 2;\n    }}\n{body}}}\n\n"


HEAD = '#include "common.h"\n\n// how many rows one block works on\n\n'
TAIL = "int launch(int n) {\n    int rows = calc_rows(n);\n    return rows * n;\n}\n"
ROWS = function("calc_rows")
EDIT = ("    return 1;\n", "    n += lp_extra(n);\n    return 1;\n")
ROWS_POST = sub(ROWS, EDIT)
WARPS = function("calc_nwarps")
FILE, FILE_POST = HEAD + ROWS + TAIL, HEAD + ROWS_POST + TAIL

ARM = "        case TYPE_{0}:\n            blocks = ne / 32;\n            launch(x, y, blocks);\n            break;\n"
ARM_POST = ARM.replace("            launch", "            lp_note(blocks);\n            launch")


def switch(*arms: str) -> str:
    """A dispatch over types."""
    return (
        "void dispatch(int type, const void * x, void * y, int ne) {\n    int blocks = 0;\n    switch (type) {\n"
        + "".join(arms)
        + "        default:\n            abort();\n    }\n}\n"
    )


def arm(name: str) -> str:
    return ARM.format(name)


def arm_post(name: str) -> str:
    return ARM_POST.format(name)


def enum(name: str, members: str, *, opener: str = "", tail: str = "    COUNT,\n    END,\n") -> str:
    """An enum whose end is that of every other enum."""
    opener = opener or f"enum {name} {{"
    lines = "".join(f"    {m},\n" for m in members.split())
    return f"{opener}\n{lines}{tail}}};\n\n"


MACRO = "#define LOAD_{0}(x) \\\n    do {{ \\\n        prefetch(x); \\\n        load(x); \\\n    }} while (0)\n\n"
MACRO_POST = MACRO.replace("        load(x); \\\n", "        lp_count(x); \\\n        load(x); \\\n")
LOOP = "    for (int i = 0; i < n; i++) {\n        sum += x[i];\n    }\n"
LOOP_POST = "    for (int i = 0; i < n; i++) {\n        sum += lp_scale(x[i]);\n    }\n"
PAD = "".join(f"static const int table_{i} = {i * 7};\n" for i in range(12)) + "\n"


def loops(*parts: str) -> str:
    return "float total(const float * x, int n) {\n    float sum = 0;\n" + "".join(parts) + "    return sum;\n}\n"


def arch(first: str, second: str) -> str:
    """Two branches that say the same for two machines."""
    return f"#if defined(__AVX2__)\n{first}#elif defined(__ARM_NEON)\n{second}#endif\n"


DEFS = "#define dot_q4 dot_q4_generic\n#define dot_q5 dot_q5_generic\n#define dot_q6 dot_q6_generic\n"
DEFS_POST = sub(DEFS, ("#define dot_q5 dot_q5_generic\n", "// dot_q5: lp\n"))

HARD = [
    Case(
        "same-shaped function added above",
        "hard",
        FILE,
        FILE_POST,
        HEAD + WARPS + ROWS + TAIL,
        HEAD + WARPS + ROWS_POST + TAIL,
    ),
    Case(
        "same-shaped function added below",
        "hard",
        FILE,
        FILE_POST,
        HEAD + ROWS + WARPS + TAIL,
        HEAD + ROWS_POST + WARPS + TAIL,
    ),
    Case(
        "same-shaped functions added above and below, with much text above",
        "hard",
        FILE,
        FILE_POST,
        HEAD + PAD + WARPS + ROWS + function("calc_tiles") + TAIL,
        HEAD + PAD + WARPS + ROWS_POST + function("calc_tiles") + TAIL,
    ),
    Case(
        "the function renamed, a look-alike added above",
        "hard",
        FILE,
        FILE_POST,
        HEAD + WARPS + function("rows_per_block") + TAIL.replace("calc_rows", "rows_per_block"),
        HEAD + WARPS + sub(function("rows_per_block"), EDIT) + TAIL.replace("calc_rows", "rows_per_block"),
    ),
    Case(
        "the function renamed and edited, an unedited look-alike added above",
        "hard",
        FILE,
        FILE_POST,
        HEAD
        + WARPS
        + sub(function("rows_per_block"), ("return 2", "return 4"))
        + TAIL.replace("calc_rows", "rows_per_block"),
        HEAD
        + WARPS
        + sub(function("rows_per_block"), ("return 2", "return 4"), EDIT)
        + TAIL.replace("calc_rows", "rows_per_block"),
    ),
    Case(
        "two twins swapped",
        "hard",
        HEAD + ROWS + WARPS + TAIL,
        HEAD + ROWS_POST + WARPS + TAIL,
        HEAD + WARPS + ROWS + TAIL,
        HEAD + WARPS + ROWS_POST + TAIL,
    ),
    Case(
        "the function removed, its twin stays",
        "hard",
        HEAD + ROWS + WARPS + TAIL,
        HEAD + ROWS_POST + WARPS + TAIL,
        HEAD + WARPS + "int launch(int n) {\n    return n;\n}\n",
        None,
    ),
    Case(
        "a switch arm of equal body added above",
        "hard",
        switch(arm("Q4"), arm("Q8")),
        switch(arm("Q4"), arm_post("Q8")),
        switch(arm("Q4"), arm("Q5"), arm("Q8")),
        switch(arm("Q4"), arm("Q5"), arm_post("Q8")),
    ),
    Case(
        "switch arms reordered",
        "hard",
        switch(arm("Q4"), arm("Q5"), arm("Q8")),
        switch(arm("Q4"), arm_post("Q5"), arm("Q8")),
        switch(arm("Q8"), arm("Q4"), arm("Q5")),
        switch(arm("Q8"), arm("Q4"), arm_post("Q5")),
    ),
    Case(
        "a switch arm removed, its neighbours have equal bodies",
        "hard",
        switch(arm("Q4"), arm("Q5"), arm("Q8")),
        switch(arm("Q4"), arm_post("Q5"), arm("Q8")),
        switch(arm("Q4"), arm("Q8")),
        None,
    ),
    Case(
        "enums with equal tails, one added above",
        "hard",
        enum("a", "A1 A2") + enum("b", "B1 B2"),
        enum("a", "A1 A2") + enum("b", "B1 B2", tail="    COUNT,\n    LP_NEW,\n    END,\n"),
        enum("c", "C1") + enum("a", "A1 A2") + enum("d", "D1") + enum("b", "B1 B2"),
        enum("c", "C1")
        + enum("a", "A1 A2")
        + enum("d", "D1")
        + enum("b", "B1 B2", tail="    COUNT,\n    LP_NEW,\n    END,\n"),
    ),
    Case(
        "nameless enums: the patched one replaced by another",
        "hard",
        enum("", "A1 A2", opener="typedef enum {") + enum("", "B1 B2 B3", opener="typedef enum {"),
        enum("", "A1 A2", opener="typedef enum {")
        + enum("", "B1 B2 B3", opener="typedef enum {", tail="    COUNT,\n    LP_NEW,\n    END,\n"),
        enum("", "A1 A2", opener="typedef enum {") + enum("", "C1 C2 C3", opener="typedef enum {"),
        None,
    ),
    Case(
        "a macro of equal body added above",
        "hard",
        MACRO.format("A") + TAIL,
        MACRO_POST.format("A") + TAIL,
        MACRO.format("B") + MACRO.format("A") + TAIL,
        MACRO.format("B") + MACRO_POST.format("A") + TAIL,
    ),
    Case(
        "the first of two equal loops removed",
        "hard",
        loops(LOOP, "    sum *= 2;\n", LOOP),
        loops(LOOP_POST, "    sum *= 2;\n", LOOP),
        loops("    sum *= 2;\n", LOOP),
        None,
    ),
    Case(
        "one of two equal loops removed, nothing between them",
        "hard",
        loops(LOOP, LOOP),
        loops(LOOP, LOOP_POST),
        loops(LOOP),
        None,
    ),
    Case(
        "a third equal loop added",
        "hard",
        loops(LOOP, LOOP),
        loops(LOOP, LOOP_POST),
        loops(LOOP, LOOP, LOOP),
        None,
    ),
    Case(
        "the branch for another machine added first, with equal text",
        "hard",
        arch(DEFS, DEFS),
        arch(DEFS_POST, DEFS),
        "#if defined(__AVX512F__)\n" + DEFS + arch(DEFS, DEFS).replace("#if", "#elif", 1),
        "#if defined(__AVX512F__)\n" + DEFS + arch(DEFS_POST, DEFS).replace("#if", "#elif", 1),
    ),
    Case(
        "the branch removed, the other machine's stays",
        "hard",
        arch(DEFS, DEFS),
        arch(DEFS_POST, DEFS),
        "#if defined(__ARM_NEON)\n" + DEFS + "#endif\n",
        None,
    ),
    Case(
        "the body moved into a helper of another name",
        "hard",
        FILE,
        FILE_POST,
        HEAD
        + function("calc_any", args="int n, int m")
        + "static int calc_rows(int n) {\n    return calc_any(n, 0);\n}\n\n"
        + TAIL,
        None,
    ),
    Case(
        "if and else with equal bodies, the branches swapped",
        "hard",
        "void f(int n) {\n    if (n) {\n        open(n);\n        close(n);\n    } else {\n        open(n);\n        close(n);\n    }\n}\n",
        "void f(int n) {\n    if (n) {\n        open(n);\n        lp(n);\n        close(n);\n    } else {\n        open(n);\n        close(n);\n    }\n}\n",
        "void f(int n) {\n    if (!n) {\n        open(n);\n        close(n);\n    } else {\n        open(n);\n        close(n);\n    }\n}\n",
        None,
    ),
]

BENIGN = [
    Case(
        "lines added far above",
        "benign",
        FILE,
        FILE_POST,
        HEAD + PAD + ROWS + TAIL,
        HEAD + PAD + ROWS_POST + TAIL,
    ),
    Case(
        "the function moved below another",
        "benign",
        HEAD + PAD + ROWS + function("calc_cols", "    return n * 3;\n") + TAIL,
        HEAD + PAD + ROWS_POST + function("calc_cols", "    return n * 3;\n") + TAIL,
        HEAD + ROWS + PAD + function("calc_cols", "    return n * 3;\n") + TAIL,
        HEAD + ROWS_POST + PAD + function("calc_cols", "    return n * 3;\n") + TAIL,
    ),
    Case(
        "the function renamed in place",
        "benign",
        FILE,
        FILE_POST,
        FILE.replace("calc_rows", "calc_rows_per_block"),
        FILE_POST.replace("calc_rows", "calc_rows_per_block"),
    ),
    Case(
        "a parameter added to the function",
        "benign",
        FILE,
        FILE_POST,
        sub(FILE, ("calc_rows(int n)", "calc_rows(int n, int cc)"), ("calc_rows(n)", "calc_rows(n, 0)")),
        sub(FILE_POST, ("calc_rows(int n)", "calc_rows(int n, int cc)"), ("calc_rows(n)", "calc_rows(n, 0)")),
    ),
    Case(
        "another line of the function changed",
        "benign",
        FILE,
        FILE_POST,
        sub(FILE, ("return 2", "return 4")),
        sub(FILE_POST, ("return 2", "return 4")),
    ),
    Case(
        "the context line three lines up changed",
        "benign",
        FILE,
        FILE_POST,
        sub(FILE, ("if (n > 8)", "if (n > 16)")),
        sub(FILE_POST, ("if (n > 8)", "if (n > 16)")),
    ),
    Case(
        "upstream took one hunk of two",
        "benign",
        FILE,
        sub(FILE_POST, ("return rows * n", "return rows * n + 1")),
        sub(FILE, ("return rows * n", "return rows * n + 1")),
        sub(FILE_POST, ("return rows * n", "return rows * n + 1")),
    ),
    Case(
        "upstream took the first of two added lines",
        "benign",
        FILE,
        sub(FILE, ("    return 1;\n", "    n += lp_extra(n);\n    lp_note(n);\n    return 1;\n")),
        FILE_POST,
        sub(FILE, ("    return 1;\n", "    n += lp_extra(n);\n    lp_note(n);\n    return 1;\n")),
    ),
    Case(
        "upstream took one of two rewritten lines that follow each other",
        "benign",
        loops("    step(x);\n    sum += x[0];\n    sum += x[1];\n    step(x + 1);\n"),
        loops("    step(x);\n    sum += lp_scale(x[0]);\n    sum += lp_scale(x[1]);\n    step(x + 1);\n"),
        loops("    step(x);\n    sum += lp_scale(x[0]);\n    sum += x[1];\n    step(x + 1);\n"),
        loops("    step(x);\n    sum += lp_scale(x[0]);\n    sum += lp_scale(x[1]);\n    step(x + 1);\n"),
    ),
    Case(
        "the whole file moved",
        "benign",
        FILE,
        FILE_POST,
        FILE,
        FILE_POST,
        moved_to="src/cpu/kernel.cpp",
    ),
    Case(
        "the file moved and edited elsewhere",
        "benign",
        HEAD + PAD + ROWS + TAIL,
        HEAD + PAD + ROWS_POST + TAIL,
        HEAD + sub(PAD, ("table_3 = 21", "table_3 = 22")) + ROWS + TAIL,
        HEAD + sub(PAD, ("table_3 = 21", "table_3 = 22")) + ROWS_POST + TAIL,
        moved_to="src/cpu/kernels.cpp",
    ),
    Case(
        "a switch arm with a body of its own added below",
        "benign",
        switch(arm("Q4"), arm("Q8")),
        switch(arm("Q4"), arm_post("Q8")),
        switch(arm("Q4"), arm("Q8"), "        case TYPE_F16:\n            copy(x, y);\n            break;\n"),
        switch(arm("Q4"), arm_post("Q8"), "        case TYPE_F16:\n            copy(x, y);\n            break;\n"),
    ),
    Case(
        "both sides add an arm in one place",
        "benign",
        switch(arm("Q4")),
        switch(arm("Q4"), "        case TYPE_LP:\n            lp(x, y);\n            break;\n"),
        switch(arm("Q4"), "        case TYPE_F16:\n            copy(x, y);\n            break;\n"),
        switch(
            arm("Q4"),
            "        case TYPE_F16:\n            copy(x, y);\n            break;\n",
            "        case TYPE_LP:\n            lp(x, y);\n            break;\n",
        ),
    ),
    Case(
        "a member added to another enum",
        "benign",
        enum("a", "A1 A2") + enum("b", "B1 B2"),
        enum("a", "A1 A2") + enum("b", "B1 B2", tail="    COUNT,\n    LP_NEW,\n    END,\n"),
        enum("a", "A1 A2 A3") + enum("b", "B1 B2"),
        enum("a", "A1 A2 A3") + enum("b", "B1 B2", tail="    COUNT,\n    LP_NEW,\n    END,\n"),
    ),
    Case(
        "a member added to the front of the same enum",
        "benign",
        enum("b", "B1 B2 B3"),
        enum("b", "B1 B2 B3", tail="    COUNT,\n    LP_NEW,\n    END,\n"),
        enum("b", "B0 B1 B2 B3"),
        enum("b", "B0 B1 B2 B3", tail="    COUNT,\n    LP_NEW,\n    END,\n"),
    ),
    Case(
        "an argument of the macro renamed elsewhere, a line added to its front",
        "benign",
        MACRO.format("A") + TAIL,
        MACRO_POST.format("A") + TAIL,
        sub(MACRO.format("A"), ("    do { \\\n", "    do { \\\n        check(x); \\\n")) + TAIL,
        sub(MACRO_POST.format("A"), ("    do { \\\n", "    do { \\\n        check(x); \\\n")) + TAIL,
    ),
    Case(
        "an unrelated function removed above",
        "benign",
        HEAD + function("calc_old", "    return n * 9;\n") + ROWS + TAIL,
        HEAD + function("calc_old", "    return n * 9;\n") + ROWS_POST + TAIL,
        HEAD + ROWS + TAIL,
        HEAD + ROWS_POST + TAIL,
    ),
    Case(
        "the condition around the change rewritten",
        "benign",
        loops("    if (n > 4) {\n        step(x);\n        sum += x[0];\n        step(x);\n    }\n"),
        loops("    if (n > 4) {\n        step(x);\n        sum += lp_scale(x[0]);\n        step(x);\n    }\n"),
        loops("    if (n > 4 && x) {\n        step(x);\n        sum += x[0];\n        step(x);\n    }\n"),
        loops("    if (n > 4 && x) {\n        step(x);\n        sum += lp_scale(x[0]);\n        step(x);\n    }\n"),
    ),
    Case(
        "a block added before, separated by a blank line",
        "benign",
        loops("    setup(x);\n\n    sum += x[0];\n", LOOP),
        loops("    setup(x);\n\n    lp_note(n);\n    sum += x[0];\n", LOOP),
        loops("    setup(x);\n\n    if (!x) {\n        return 0;\n    }\n\n    sum += x[0];\n", LOOP),
        loops("    setup(x);\n\n    if (!x) {\n        return 0;\n    }\n\n    lp_note(n);\n    sum += x[0];\n", LOOP),
    ),
    Case(
        "a source added to the list in another place",
        "benign",
        "add_library(ggml\n    alloc.c\n    backend.cpp\n    opt.cpp\n    threading.cpp\n    quants.c\n    )\n",
        "add_library(ggml\n    alloc.c\n    backend.cpp\n    lp.cpp\n    opt.cpp\n    threading.cpp\n    quants.c\n    )\n",
        "add_library(ggml\n    alloc.c\n    backend.cpp\n    opt.cpp\n    threading.cpp\n    profiler.cpp\n    quants.c\n    )\n",
        "add_library(ggml\n    alloc.c\n    backend.cpp\n    lp.cpp\n    opt.cpp\n    threading.cpp\n    profiler.cpp\n    quants.c\n    )\n",
    ),
    Case(
        "comments reworded all around",
        "benign",
        HEAD + "// rows\n" + ROWS + "// launch\n" + TAIL,
        HEAD + "// rows\n" + ROWS_POST + "// launch\n" + TAIL,
        HEAD.replace("how many", "the number of") + "// Rows.\n" + ROWS + "// The launch.\n" + TAIL,
        HEAD.replace("how many", "the number of") + "// Rows.\n" + ROWS_POST + "// The launch.\n" + TAIL,
    ),
    Case(
        "wrapped in a namespace",
        "benign",
        FILE,
        FILE_POST,
        HEAD + "namespace ggml {\n\n" + ROWS + TAIL + "\n}\n",
        HEAD + "namespace ggml {\n\n" + ROWS_POST + TAIL + "\n}\n",
    ),
    Case(
        "the block indented deeper",
        "benign",
        loops("    step(x);\n    sum += x[0];\n    step(x + 1);\n    done(x);\n"),
        loops("    step(x);\n    sum += x[0];\n    lp_note(n);\n    step(x + 1);\n    done(x);\n"),
        loops("    if (x) {\n        step(x);\n        sum += x[0];\n        step(x + 1);\n        done(x);\n    }\n"),
        loops(
            "    if (x) {\n        step(x);\n        sum += x[0];\n        lp_note(n);\n        step(x + 1);\n        done(x);\n    }\n"
        ),
    ),
]
CASES = HARD + BENIGN
