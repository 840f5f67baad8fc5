"""A page on which a trained model is tried: pictures, drawings, both directions; on this machine, or as a Space.

Only ``page`` and ``serving`` know gradio, which is loaded where it is needed.
"""
