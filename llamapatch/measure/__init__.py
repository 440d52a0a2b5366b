"""Run the built tools; keep what they printed; sample memory and time."""
