"""How the process lives on its machine: threads, children, disk, the folder of its state.

    workers.py    the one place that makes a thread
    loop.py       an asyncio loop on one of them
    child.py      heavy work in a process of its own
    priority.py   work that must not take the CPU from the line
    durable.py    what survives a power cut
    sqlite.py     what all SQLite files have in common
    state.py      the state folder: the names of its files, and that one daemon uses it

Knows nothing of pictures, models or doors.
"""
