"""edged: a daemon beside a production line that looks at parts and says OK or not OK.

Start reading at `edged/line/`, the journey of a frame; `edged/daemon/app.py` joins the rooms.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("edged")
except PackageNotFoundError:  # a source tree on PYTHONPATH, never installed
    __version__ = "0.0.0"
