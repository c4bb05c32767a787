"""A cascade as one served model: what is asked of it, and what runs within the server.

What runs there is copied beside the served model, with whatever it imports: numpy and OpenCV, and nothing else.
"""
