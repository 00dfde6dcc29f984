"""Rendered parts with known truth: what a fresh machine without pictures runs on.

    camera.py    the camera
    parts.py     one frame: the product as it happened to lie under the lamp
    designs.py   the two products
    defects.py   what goes wrong with them
    font.py      the letters of the printed one

Everything that comes from here says `simulated`, in every record made of it.
"""
