"""Receivers of results: each with a bounded channel of its own."""
