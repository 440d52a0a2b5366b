"""Any input ends in a value or in an error of ours: the parsers of diffs, mail, quilt folders and TOML, bounded in time.

Inputs are real ones, damaged: bytes changed, lines dropped, doubled and swapped, pieces of one spliced into another.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamapatch.config import Settings
from llamapatch.errors import LlamapatchError
from llamapatch.series.load import load_series
from llamapatch.series.order import insert_id, move_id, remove_id
from llamapatch.tree.diff import format_diff, parse_diff, split_lines
from llamapatch.tree.exchange.carried import read_carried, write_carried
from llamapatch.tree.exchange.export import quote_printable
from llamapatch.tree.exchange.files import read_plain, read_quilt
from llamapatch.tree.exchange.foreign import read_files
from llamapatch.tree.exchange.mail import clean_subject, looks_like_mail, read_date, read_mailbox
from tests.project import Project

DIFF = b"""\
diff --git a/a b/a
old mode 100644
new mode 100755
index 0123456..89abcde
--- a/a
+++ b/a
@@ -1,3 +1,4 @@ f()
 one
-two
+2
+3
 three
\\ No newline at end of file
diff --git "a/t\\tb" "b/t\\tb"
new file mode 120000
index 0000000..89abcde
--- /dev/null
+++ "b/t\\tb"
@@ -0,0 +1 @@
+x
diff --git a/bin b/bin
index eb2e937a24737d7e5ade6dc8e0bb3bdd4af15686..886adc15f115902428928b59754b5e78e19b0b02 100644
GIT binary patch
literal 4
OcmV+f0Q>&{ba!t8y#ZSQ

literal 4
OcmV+f0Q>&{Z*FA*k^w^i

diff --git a/x b/y
similarity index 90%
rename from x
rename to y
index 0123456..89abcde 100644
--- a/x
+++ b/y
@@ -1 +1 @@
-1
+2
--- old/p\t2026-01-01
+++ new/p\t2026-01-01
@@ -2 +2 @@
-1
+2
"""
MAIL = (
    b"From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"
    b"From: =?UTF-8?q?J=C3=B6rg?= <j@localhost>\nDate: Wed, 4 Mar 2026 00:00:00 +0000\nSubject: [PATCH 1/2] [x] a\n b\n"
    b"MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\nbody\n---\n"
    b" a | 2 +-\n 1 file changed, 1 insertion(+)\n\n" + DIFF + b"-- \n2.39\n\n"
)
QP = (
    MAIL.replace(b"8bit", b"quoted-printable").partition(b"\n\n")[0]
    + b"\n\n"
    + quote_printable(MAIL.partition(b"\n\n")[2])
)
DEP3 = b"Description: x\n y\n .\n z\nAuthor: A <a@b>\nForwarded: no\nLast-Update: 2026-01-02\n---\n" + DIFF
CANONICAL = b"""\
diff --git a/a b/a
old mode 100644
new mode 100755
--- a/a
+++ b/a
@@ -1,3 +1,4 @@
 one
-two
+2
+3
 three
\\ No newline at end of file
diff --git a/b c b/b c
new file mode 100644
--- /dev/null
+++ b/b c\t
@@ -0,0 +1,2 @@
+x
+y
diff --git a/e b/e
deleted file mode 100644
"""
SERIES = b"# c\na.patch -p1 # why\n'b c.patch' -p0\n-R\n\"unclosed\n../x\n/etc/passwd\n"
CARRIED = write_carried({"patch.toml": b"id = 'x'\n", "README.md": b"# x\n\r\nno newline"})
SEEDS = [DIFF, MAIL, MAIL * 2, QP, DEP3, SERIES, CARRIED]
SPICE = [b"\n", b"\r\n", b"\0", b"@@ -1 +1 @@\n", b"diff --git a/a b/a\n", b"--- a\n", b"+++ b\n", b"-- \n", b"---\n", b"\xff",
         b"From x Mon Sep 17 00:00:00 2001\n", b"=?UTF-8?b?!!?=", b"99999999999999999999", b"literal 99999\n", b"rename to \n",
         b'"', b"\\777", b"../", b"Content-Type: multipart/mixed; boundary=x\n", b"Content-Transfer-Encoding: base64\n"]  # fmt: skip


def damaged(seed: int, data: bytes = b"", wounds: int = 6) -> bytes:
    """A seed (or `data`) with one to six wounds; the same for the same number."""
    dice = random.Random(seed)
    data = data or dice.choice(SEEDS)
    for _ in range(dice.randint(1, wounds)):
        lines = data.split(b"\n")
        at = dice.randrange(len(lines))
        wound = dice.randrange(7)
        if wound == 0:
            del lines[at]
        elif wound == 1:
            lines.insert(at, lines[dice.randrange(len(lines))])
        elif wound == 2:
            lines[at] = lines[at][: dice.randint(0, len(lines[at]))]
        elif wound == 3:
            other = dice.choice(SEEDS).split(b"\n")
            start = dice.randrange(len(other))
            lines[at:at] = other[start : start + dice.randint(1, 9)]
        data = b"\n".join(lines)
        if wound == 4:
            place = dice.randint(0, len(data))
            data = data[:place] + dice.choice(SPICE) + data[place:]
        elif wound == 5 and data:
            place = dice.randrange(len(data))
            data = data[:place] + bytes([dice.randrange(256)]) + data[place + 1 :]
        elif wound == 6:
            data = data[: dice.randint(0, len(data))]
    return data


PARSERS: dict[str, Callable[[bytes], object]] = {
    "change.patch": parse_diff,
    "diff": lambda data: read_files(split_lines(data), 0, "x"),
    "mail": lambda data: (looks_like_mail(data), read_mailbox(data, "x")),
    "plain": lambda data: read_plain(data, "x"),
    "carried": lambda data: read_carried(split_lines(data)),
    "subject": lambda data: (clean_subject(data.decode("latin-1")), read_date(data.decode("latin-1"))),
}


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_input(name: str) -> None:
    """4000 wounded inputs, or as many as fit into five seconds; the numbers make a failure repeatable."""
    began = time.monotonic()
    for seed in range(4000):
        data = damaged(seed)
        try:
            PARSERS[name](data)
        except LlamapatchError:
            pass
        except Exception as error:
            raise AssertionError(f"seed {seed}: {data!r}") from error
        if time.monotonic() - began > 5:
            assert seed > 300
            break


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=500))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_noise(name: str, data: bytes) -> None:
    with contextlib.suppress(LlamapatchError):
        PARSERS[name](data)


def test_what_the_strict_parser_takes_is_written_back() -> None:
    """No two spellings: whatever parse_diff accepts of a damaged diff, format_diff writes in the one form, and that form
    is read as the same change."""
    taken = 0
    for seed in range(2000):
        try:
            files = parse_diff(damaged(seed, CANONICAL, wounds=1))
        except LlamapatchError:
            continue
        taken += 1
        assert parse_diff(format_diff(files)) == files
    assert taken > 50  # most wounds are fatal


def test_hostile_sizes_take_no_time() -> None:
    """Claims that would cost quadratic time, or memory, if they were believed."""
    big = b"".join(
        b"diff --git a/%d b/%d\n--- a/%d\n+++ b/%d\n@@ -1 +1 @@\n-a\n+b\n" % (i, i, i, i) for i in range(4000)
    )
    inputs = [
        b"--- a\n+++ b\n@@ -1,999999999 +1,999999999 @@\n" + b" x\n" * 20000,
        big + b"@@ broken\n",
        b"GIT binary patch\nliteral 999999999\n",
        MAIL.replace(b"body\n", b"--- a\n+++ b\n@@ -1 +1 @@\n-x\n" * 2000),
        b"From x Mon Sep 17 00:00:00 2001\n\n" * 20000,
    ]
    began = time.process_time()
    for data in inputs:
        for parse in PARSERS.values():
            with contextlib.suppress(LlamapatchError):
                parse(data)
    assert time.process_time() - began < 10


@given(listing=st.lists(st.sampled_from([*SERIES.split(b"\n"), b"\xff", b"x" * 300, b"-p9"]), max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_quilt_folders(tmp_path_factory: pytest.TempPathFactory, listing: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("quilt")
    (folder / "series").write_bytes(b"\n".join(listing))
    (folder / "a.patch").write_bytes(DEP3)
    with contextlib.suppress(LlamapatchError):
        read_quilt(folder)


def test_damaged_toml(sampler: Project) -> None:
    """series.toml and patch.toml with wounds: read or refused, and never edited into something that is not read."""
    config: Settings = sampler.settings()
    seeds = {
        "patches/series.toml": (sampler.root / "patches/series.toml").read_bytes(),
        "patches/phase1/sampler/patch.toml": (sampler.folder("sampler") / "patch.toml").read_bytes(),
    }
    began = time.monotonic()
    for seed in range(600):
        dice = random.Random(seed)
        name, data = dice.choice(list(seeds.items()))
        for _ in range(dice.randint(1, 3)):
            place = dice.randint(0, len(data))
            spice = dice.choice(
                [b'"', b"[", b"]", b"\n", b"=", b"\xff", b"[[phase]]\n", b"1e999", b"'''", b"#", b"a = 1\n", b"{"]
            )
            data = dice.choice([data[:place] + spice + data[place:], data[:place] + data[place + 1 :], data[:place]])
        with contextlib.suppress(LlamapatchError):
            load_series(config, {name: data})
        if name.endswith("series.toml"):
            text = data.decode("utf-8", "replace")
            for edit in (
                lambda t: insert_id(t, "new", phase="phase1"),
                lambda t: move_id(t, "sampler", after="warps"),
                lambda t: remove_id(t, "warps"),
            ):
                with contextlib.suppress(LlamapatchError):
                    edit(text)
        if time.monotonic() - began > 8:
            assert seed > 100
            break


@given(data=st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_carried_files_come_back(data: bytes) -> None:
    block = write_carried({"patch.toml": data, "README.md": b"# x\n"})
    assert read_carried(split_lines(b"\nbefore\n" + block + b"\ndiff --git a/a b/a\n")) == {
        "patch.toml": data,
        "README.md": b"# x\n",
    }
    assert read_carried(split_lines(b"nothing\n")) == {}


@given(data=st.binary(max_size=600))
@settings(max_examples=150, deadline=None)
def test_quoted_printable_comes_back(data: bytes) -> None:
    import quopri

    packed = quote_printable(data)
    assert quopri.decodestring(packed) == data
    assert all(len(line) <= 76 for line in packed.split(b"\n"))
    assert b"\r" not in packed and not packed.startswith(b"From ")


def test_the_folder_is_no_patch(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    with pytest.raises(LlamapatchError):
        read_quilt(tmp_path)
