"""A web page to try a trained model: pictures, drawings, both directions; on this machine, or as a Space.

Only ``page`` and ``serving`` use gradio, which is imported when needed.
"""
