"""Cameras and files: one thread each that only reads, and a supervisor that alone retries."""
