"""Random look-alikes with a known truth: blocks of equal shape that upstream adds, removes, renames, moves and edits.

A patch adds one line to one block. Blocks have an identity of their own, so the right result is known: the line in that
block, wherever it went and whatever it is called; none where the block is gone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

_BODIES = (
    ("    if (n > 8) {", "        return 2;", "    }", "    return 1;"),
    ("    int s = 0;", "    for (int i = 0; i < n; i++) {", "        s += i;", "    }", "    return s;"),
    ("    if (n > 8) {", "        return 2;", "    }", "    log(n);", "    return 1;"),
)


@dataclass(frozen=True)
class Block:
    """A function or a switch arm; `id` is -1 for one that upstream added."""

    id: int
    name: str
    args: str
    body: tuple[str, ...]


def functions(blocks: list[Block]) -> bytes:
    return "".join(f"static int {b.name}({b.args}) {{\n{_lines(b.body)}}}\n\n" for b in blocks).encode()


def arms(blocks: list[Block]) -> bytes:
    inner = "".join(f"        case {b.name}:\n{_lines('        ' + line for line in b.body)}" for b in blocks)
    return f"void d(int t, int n) {{\n    switch (t) {{\n{inner}        default:\n            break;\n    }}\n}}\n".encode()


def _lines(lines: object) -> str:
    return "".join(f"{line}\n" for line in lines)  # type: ignore[attr-defined]


def draw(seed: int, *, as_arms: bool) -> tuple[bytes, bytes, bytes, bytes | None]:
    """Before, patched, upstream's new file, and the right result (None: the block is gone)."""
    rng = random.Random(seed)
    render = arms if as_arms else functions
    old = [Block(i, f"calc_{chr(97 + i)}", "int n", rng.choice(_BODIES)) for i in range(rng.randint(2, 5))]
    target = rng.randrange(len(old))
    at = rng.randrange(1, len(old[target].body))
    deep = old[target].body[at].startswith("        ")
    now = list(old)
    # A switch arm's label is what it is known by; renaming one makes it another arm.
    names = ("rename", "signature") if not as_arms else ()
    for _ in range(rng.randint(1, 3)):
        if not now:
            break
        fresh = f"new_{rng.randrange(10**6)}"
        k = rng.randrange(len(now))
        match rng.choice(("twin", "remove", "move", "move", "edit", *names)):
            case "twin":
                now.insert(rng.randrange(len(now) + 1), Block(-1, fresh, "int n", now[k].body))
            case "remove":
                del now[k]
            case "move":
                block = now.pop(k)
                now.insert(rng.randrange(len(now) + 1), block)
            case "rename":
                now[k] = replace(now[k], name=fresh)
            case "signature":
                now[k] = replace(now[k], args="int n, int q")
            case "edit":
                j = rng.randrange(len(now[k].body))
                if now[k].id != target or abs(j - at) > 1:
                    body = list(now[k].body)
                    body[j] = body[j].replace("n", "m", 1)
                    now[k] = replace(now[k], body=tuple(body))

    def patched(block: Block) -> Block:
        line = ("        " if deep else "    ") + "lp();"
        return replace(block, body=(*block.body[:at], line, *block.body[at:])) if block.id == target else block

    want = render([patched(b) for b in now]) if any(b.id == target for b in now) else None
    return render(old), render([patched(b) for b in old]), render(now), want
