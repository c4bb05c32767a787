"""A self-made world for the demo and the tests: rendered streets, their truth, and a detector trained on them."""

__all__: list[str] = []
