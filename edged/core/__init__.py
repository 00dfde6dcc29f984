"""The words that every room shares. numpy and the standard library only.

types.py       what travels: Frame -> Job -> Prediction -> Verdict -> Inspection
protocols.py   what the rooms ask of each other
errors.py      the error tree, and what each is called on the wire
lifecycle.py   the lives of models, data sets and packaging jobs, as tables
stations.py    how a station stands, as a table
observer.py    hooks that keep counting off the path of a frame
names.py       words that configuration and command line share with the rooms
"""
