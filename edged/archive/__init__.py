"""The archive: every inspection on disk, with some of their pictures.

    accept (unit threads) -> queue -> worker `archive` -> picture files, journal -> subscribers

    sink.py        takes inspections: the queue and the worker between the line and the disk
    journal.py     the rows, written
    reader.py      the rows and pictures, read, by whoever asks
    pictures.py    the picture files
    retention.py   which pictures are kept, and which go

Never makes a unit wait, and must not judge. Knows no broker and no door: who wants to hear of new
entries subscribes.
"""
