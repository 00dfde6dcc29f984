"""From labelled pictures to a model folder, and from a model to figures about it.

    samples.py    what is known about a picture; dataset.py, manifest.py find the pictures
    fit.py        the training job, in the order of its steps:
    evidence.py     input size, map and bank chosen by planted.py's defects
    gather.py       every picture read once and described; cache.py keeps that while it runs
    features.py     what a picture looks like to the scorers, through a network.py:
                    backbone.py, or plug.py for another one by path
    ensemble.py     the scorers together: scorers.py, bank.py, segments.py (masks.py reads masks)
    selection.py    folds, who takes part and with what weight
    calibration.py  units, fusion, limits, from out-of-fold scores
    threshold.py    the threshold and its record; budget.py by budget, with bounds.py
    graph.py        all of it as one ONNX graph, written by nodes.py
    record.py       spec.json; folder.py writes the folder, whole or not at all
    evaluate.py   how good a model is: metrics.py counts, report.py draws the page

The room knows no runtime: it is handed a loader that runs ONNX bytes.

Decision: the scorers are summed, none is picked. Over ten real sets every single scorer failed
on some set; the plain sum of signed logarithms, each in units of its own out-of-fold normal
scores, had the best mean AUROC (0.92 from normal pictures alone, 0.95 with labelled anomalies).
Stacking and picking by cross-validation did worse: they trust scorers whose training normals
are easy. One exception: the supervised scorer stays out when, out-of-fold, it is plainly behind
the others, as it is with few or very varied anomalies.

Decision: the Gaussian per position is kept as a mean and 16 directions, not as a full matrix of
96 x 96. On the two sets at hand the AUROC is the same, the file 26 MB instead of 52 MB, and the
whole graph 1.2 times the backbone instead of 1.4 times (ONNX Runtime, one picture, one core).
"""
