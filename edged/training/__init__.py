"""From labelled pictures to a model folder, and from a model to figures about it.

    data/          which pictures there are, and what is known of each
    features/      what a picture looks like to the scorers, through a frozen network
    scorers/       what is fitted, who takes part, and what the choice rests on
    figures/       what scores and counts say: units, thresholds, budgets, AUROC
    onnx/          ONNX graphs node by node; the home of onnx
    export/        the model: one graph, spec.json, a folder
    fit.py         a training: all of it, in the order of its steps; read it first
    evaluate.py    how good a model is on labelled pictures
    report.py      that as one HTML page
    threshold.py   another threshold for a model that is trained

The room knows no runtime: it is handed a loader that runs ONNX bytes.

Decision: the scorers are summed, none is picked. Over ten real sets every single scorer failed
on some set; the plain sum of signed logarithms, each in units of its own out-of-fold normal
scores, had the best mean AUROC (0.92 from normal pictures alone, 0.95 with labelled anomalies).
Stacking and picking by cross-validation did worse: they trust scorers whose training normals
are easy. One exception: the supervised scorer stays out when, out-of-fold, it is plainly worse than
the others, as it is with few or very varied anomalies.

Decision: the Gaussian per position is kept as a mean and 16 directions, not as a full matrix of
96 x 96. On the two sets at hand the AUROC is the same, the file 26 MB instead of 52 MB, and the
whole graph 1.2 times the backbone instead of 1.4 times (ONNX Runtime, one picture, one core).
"""
