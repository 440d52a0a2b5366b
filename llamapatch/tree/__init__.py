"""Git plumbing: apply, rollback, verify, worktrees, overlay of kernels."""
