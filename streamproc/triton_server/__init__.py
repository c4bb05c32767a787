"""A local Triton: found or set up, started, watched, asked how it is, and stopped."""
