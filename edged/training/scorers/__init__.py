"""What is fitted to features, and who of it judges.

distances.py   the four scorers: Gaussians, and one that learns from labels
bank.py        a memory of normal positions
segments.py    which pixels show which class of defect
masks.py       from the masks of a data set to segments
ensemble.py    the scorers together
selection.py   folds, who takes part and with what weight
evidence.py    input size, map and bank, chosen by planted defects
"""
