"""What the patches are: series.toml, patch.toml, series.lock, selection."""
