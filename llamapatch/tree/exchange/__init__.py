"""Patches in and out: mail, plain diffs, quilt folders, forks; and back to what git am, quilt and patch accept."""
