"""One self-contained HTML page about a model: how it did on labelled pictures, and how steadily.

Owns the drawing. Everything is inside the file (SVG and embedded pictures), nothing is loaded:
it can be mailed, archived and opened years later. Counts nothing itself: see evaluate.py.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import BadImage, InvalidInput
from edged.core.types import Image
from edged.training.evaluate import Judged, JudgePicture, Tally, figures
from edged.training.figures.metrics import precision_recall
from edged.wire import imaging
from edged.wire.imaging import Decoded

WORST = 8
STEADY_PICTURES = 24
NOISE = 3.0
"""Deviation of the sensor noise that is tried, of 255."""
SHOWN_SIDE = 360
WIDE, HIGH = 420, 240
GOOD, BAD = "#2a6fb0", "#c8452b"
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;
text-align:left}figure{display:inline-block;margin:.5em;vertical-align:top;max-width:380px}
figcaption{font-size:13px;color:#555;overflow-wrap:anywhere}svg text{font-size:11px;fill:#555}
"""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far scores move when the line changes a little; over some of the pictures."""

    what: str
    mean: float
    largest: float
    flips: int
    pictures: int


def write_report(path: Path, title: str, found: Tally, judge: JudgePicture) -> None:
    """Write the page, whole or not at all. Raises InvalidInput when it cannot be written."""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _words(figures(found)),
        "<h2>Scores</h2>",
        _histogram(found),
        "<h2>Curves</h2>",
        _curves(found),
        "<h2>Steadiness</h2>",
        _drifts(steadiness(found, judge)),
        "<h2>The pictures that need a look</h2>",
        _worst(found, judge),
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f"</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InvalidInput(f"{path}: cannot be written ({error.strerror}).") from error


def steadiness(found: Tally, judge: JudgePicture) -> list[Drift]:
    """Score drift under 10 % more or less light, 4 pixels of shift, and a sensor's noise."""
    step = max(1, len(found.pictures) // STEADY_PICTURES)
    chosen = found.pictures[::step][:STEADY_PICTURES]
    changes: dict[str, Callable[[Image], Image]] = {
        "10 % darker": lambda image: _lit(image, 0.9),
        "10 % brighter": lambda image: _lit(image, 1.1),
        "4 px to the right": lambda image: np.roll(image, 4, axis=1),
        "4 px down": lambda image: np.roll(image, 4, axis=0),
        f"noise of {NOISE:g} levels": _noisy,
    }
    drifts = []
    for what, change in changes.items():
        moved, flips = [], 0
        for picture in chosen:
            changed = np.ascontiguousarray(change(imaging.read(picture.path)))
            verdict = judge(Decoded.whole(changed))
            moved.append(abs(verdict.score - picture.score))
            flips += verdict.is_anomalous is not picture.rejected
        drifts.append(Drift(what, float(np.mean(moved)), float(np.max(moved)), flips, len(chosen)))
    return drifts


def _noisy(image: Image) -> Image:
    noise = np.random.default_rng(0).standard_normal(image.shape, np.float32) * np.float32(NOISE)
    return np.asarray(np.clip(np.rint(image + noise), 0, 255), np.uint8)


def _lit(image: Image, gain: float) -> Image:
    return np.asarray(np.clip(image * gain, 0, 255), np.uint8)


def _words(numbers: dict[str, Any]) -> str:
    rows = []
    for key, kind, what in (
        ("false_reject", "normal", "good parts would be rejected (false rejects)"),
        ("escape", "anomaly", "bad parts would pass (escapes)"),
    ):
        count = numbers["false_positives" if key == "false_reject" else "false_negatives"]
        if not numbers[kind]:
            rows.append(f"<p>No {kind} pictures: nothing is known of how many {what}.</p>")
            continue
        low, high = numbers[f"{key}_interval"]
        rows.append(
            f"<p><b>{count} of {numbers[kind]} {what}</b>: {count / numbers[kind]:.1%}; the true "
            f"rate lies between {low:.1%} and {high:.1%} (95 % confidence).</p>"
        )
    shown = [
        ("ROC AUC", "auroc"), ("Average precision", "average_precision"),
        ("Precision", "precision"), ("Recall", "recall"), ("F1 score", "f1"),
        ("Threshold", "threshold"), ("Pixel ROC AUC", "pixel_auroc"),
    ]  # fmt: skip
    cells = "".join(
        f"<tr><td>{name}</td><td>{numbers[key]:.4f}</td></tr>"
        for name, key in shown
        if numbers.get(key) is not None
    )
    confusion = (
        "<table><tr><th></th><th>judged OK</th><th>judged not OK</th></tr>"
        f"<tr><td>good parts</td><td>{numbers['true_negatives']}</td>"
        f"<td>{numbers['false_positives']}</td></tr><tr><td>bad parts</td>"
        f"<td>{numbers['false_negatives']}</td><td>{numbers['true_positives']}</td></tr></table>"
    )
    return "".join(rows) + confusion + f"<table>{cells}</table>" + _classes(numbers)


def _classes(numbers: dict[str, Any]) -> str:
    rows = numbers.get("pixel_anomaly_class_metrics", [])
    if not rows:
        return ""
    keys = ("Precision", "Recall", "F1Score", "AIOU")
    head = "".join(f"<th>{key}</th>" for key in keys)
    body = "".join(
        f"<tr><td>{html.escape(row['ClassName'])}</td>"
        + "".join(f"<td>{row[key]:.3f}</td>" for key in keys)
        + "</tr>"
        for row in rows
    )
    return (
        f"<h2>Classes of defects, by pixel</h2><table><tr><th>class</th>{head}</tr>{body}</table>"
    )


def _svg(body: str, across: str, up: str, highest: float = 1.0) -> str:
    left, top = 40, 12
    frame = f'<rect x="{left}" y="{top}" width="{WIDE}" height="{HIGH}" fill="none" stroke="#bbb"/>'
    ticks = "".join(
        f'<text x="{left + WIDE * t}" y="{top + HIGH + 15}" text-anchor="middle">{t:g}</text>'
        for t in (0.0, 0.25, 0.5, 0.75, 1.0)
    ) + "".join(
        f'<text x="{left - 4}" y="{y + 4}" text-anchor="end">{value:g}</text>'
        for y, value in ((top + HIGH, 0.0), (top, highest))
    )
    names = (
        f'<text x="{left + WIDE / 2}" y="{top + HIGH + 32}" text-anchor="middle">{across}</text>'
        f'<text x="12" y="{top + HIGH / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {top + HIGH / 2})">{up}</text>'
    )
    return (
        f'<svg width="{WIDE + 60}" height="{HIGH + 52}" role="img" aria-label="{up} over {across}">'
        f"{frame}{ticks}{names}"
        f'<g transform="translate({left} {top})">{body}</g></svg>'
    )


def _histogram(found: Tally) -> str:
    edges = np.linspace(0, 1, 41)
    counted = [
        (np.histogram(found.scores[chosen], edges)[0], colour)
        for chosen, colour in ((~found.labels, GOOD), (found.labels, BAD))
    ]
    tallest = max(1, *(int(counts.max()) for counts, _ in counted))
    wide = WIDE / 40
    bars = "".join(
        f'<rect x="{i * wide:.1f}" y="{HIGH * (1 - n / tallest):.1f}" width="{wide - 1:.1f}" '
        f'height="{HIGH * n / tallest:.1f}" fill="{colour}" fill-opacity=".6"/>'
        for counts, colour in counted
        for i, n in enumerate(counts)
        if n
    )
    at = (found.threshold or 0.0) * WIDE
    line = f'<line x1="{at}" x2="{at}" y1="0" y2="{HIGH}" stroke="#222" stroke-dasharray="4 3"/>'
    legend = f'<p><b style="color:{GOOD}">good parts</b>, <b style="color:{BAD}">bad parts</b>; '
    drawn = _svg(bars + line, "score", "pictures", tallest)
    return f"{drawn}{legend}dashed: the threshold.</p>"


def _curves(found: Tally) -> str:
    curve = precision_recall(found.scores, found.labels)
    if curve is None or found.labels.all():
        return "<p>Curves need good and bad parts.</p>"
    recall, precision = curve
    order = np.argsort(-found.scores, kind="stable")
    hit, ranked = found.labels[order], found.scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # ties are taken together
    passed = np.concatenate([[0.0], (np.cumsum(~hit) / (~hit).sum())[last]])
    caught = np.concatenate([[0.0], (np.cumsum(hit) / hit.sum())[last]])
    return _svg(_line(passed, caught), "false reject rate", "recall (ROC)") + _svg(
        _line(np.concatenate([[0.0], recall]), np.concatenate([[1.0], precision])),
        "recall",
        "precision",
    )


def _line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> str:
    points = " ".join(f"{a * WIDE:.1f},{(1 - b) * HIGH:.1f}" for a, b in zip(x, y, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{GOOD}" stroke-width="2"/>'


def _drifts(drifts: Sequence[Drift]) -> str:
    rows = "".join(
        f"<tr><td>{d.what}</td><td>{d.mean:.4f}</td><td>{d.largest:.4f}</td>"
        f"<td>{d.flips} of {d.pictures}</td></tr>"
        for d in drifts
    )
    names = ("change", "mean drift of the score", "largest", "verdicts that flip")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _worst(found: Tally, judge: JudgePicture) -> str:
    """Wrong ones first, then those nearest to the threshold."""
    threshold = found.threshold or 0.0

    def need(picture: Judged) -> tuple[bool, float]:
        off = abs(picture.score - threshold)
        wrong = picture.rejected is not picture.is_anomalous
        return (not wrong, -off if wrong else off)

    return "".join(_figure(p, judge) for p in sorted(found.pictures, key=need)[:WORST])


def _figure(picture: Judged, judge: JudgePicture) -> str:
    try:
        image = imaging.read(picture.path)
        verdict = judge(Decoded.whole(image))
    except BadImage:  # it was there a moment ago
        return ""
    if verdict.heatmap is not None:
        image = imaging.heatmap_overlay(image, verdict.heatmap)
    height, width = image.shape[:2]
    scale = SHOWN_SIDE / max(height, width)
    small = np.empty((max(1, round(height * scale)), max(1, round(width * scale)), 3), np.uint8)
    imaging.resize_into(image, small)
    data = base64.b64encode(imaging.encoded_jpeg(small)).decode("ascii")
    truth = "bad part" if picture.is_anomalous else "good part"
    word = "not OK" if picture.rejected else "OK"
    mark = "" if picture.rejected is picture.is_anomalous else " <b>WRONG</b>"
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{html.escape(picture.path.name)}: {truth}, judged {word} with "
        f"{picture.score:.4f}{mark}</figcaption></figure>"
    )
