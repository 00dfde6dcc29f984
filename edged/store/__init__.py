"""What edged keeps on disk between runs, other than records on their way out.

sequences.py    the numbers of frames, never given twice

Concrete classes, no protocol: tests use the real thing. Nothing here knows cameras or pipelines.
"""
