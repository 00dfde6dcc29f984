"""What scores and counts say. Pure: no picture, no file.

metrics.py       how well scores tell normal from anomalous
calibration.py   units, fusion, limits, from out-of-fold scores
bounds.py        what counts say about a rate
budget.py        a threshold for a budget
"""
