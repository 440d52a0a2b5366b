"""Toolchain probe, CMake presets, variants, incremental builds."""
