"""What is compared: an arm is one build's programs together with one setting of the patches' switches.

The environment of an arm is made, not inherited: every ``LLAMA_LP_*`` of the caller is removed and exactly the arm's
are set, and the arm's own folder leads the loader's path, so that neither a forgotten switch nor a stray libllama on
``LD_LIBRARY_PATH`` can be what was measured.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamapatch.errors import EnvironmentProblem

SWITCH_PREFIX = "LLAMA_LP_"
STATS_VARIABLE = "LLAMA_LP_STATS"
BASE = "base"
AGAIN = "base-again"
OFF = "off"
ON = "on"
PEER = "peer-"
LIBRARY_PATH = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"


@dataclass(frozen=True)
class Arm:
    """One side of a comparison. `switches` are environment variables with their values; `label` names the series
    state of the build ("v0.5.0+lp.0123456789ab"), `patched` whether the build has the foundation's counters."""

    name: str
    bin: Path
    label: str
    commit: str = ""
    patched: bool = False
    switches: Mapping[str, str] = field(default_factory=dict)

    def environment(self, stats: Path | None = None) -> dict[str, str]:
        """The whole environment for a process of this arm."""
        env = {k: v for k, v in os.environ.items() if not k.startswith((SWITCH_PREFIX, "LLAMA_ARG_"))}
        inherited = env.get(LIBRARY_PATH, "")
        env[LIBRARY_PATH] = f"{self.bin}{os.pathsep}{inherited}" if inherited else str(self.bin)
        env["LC_ALL"] = "C.UTF-8"
        env.update(self.switches)
        if stats is not None:
            env[STATS_VARIABLE] = str(stats)
        return env

    def tool(self, name: str) -> Path:
        """The path of one of the build's programs; raises `EnvironmentProblem` when it is not there."""
        path = self.bin / name
        if not path.is_file():
            raise EnvironmentProblem(
                f"{path} is not there, so the {self.name} arm cannot be measured.",
                "Run `llamapatch build`, or give a folder that holds the tools with --bin-base / --bin-patched.",
            )
        return path


def make_arms(
    base_bin: Path,
    base_label: str,
    patched_bin: Path,
    patched_label: str,
    switches: Mapping[str, str],
    *,
    base_commit: str = "",
    patched_commit: str = "",
    peers: Mapping[str, Path] | None = None,
) -> tuple[Arm, ...]:
    """The arms of a comparison in the order they are shown: base, base again, off, on when there is a switch, and the
    `peers` (other builds with llama.cpp's tools, such as another fork; only their speed and text quality count)."""
    arms = [
        Arm(BASE, base_bin, base_label, base_commit),
        Arm(AGAIN, base_bin, base_label, base_commit),
        Arm(OFF, patched_bin, patched_label, patched_commit, True, dict.fromkeys(switches, "off")),
    ]
    if switches:
        arms.append(Arm(ON, patched_bin, patched_label, patched_commit, True, dict(switches)))
    for name, folder in (peers or {}).items():
        # It may be a patched build of somebody else's, which writes counters too.
        arms.append(Arm(f"{PEER}{name}", folder, f"given build {folder}", patched=True))
    return tuple(arms)
