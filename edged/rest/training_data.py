"""What a model is to be trained on: the labelled lines of its data sets, held against the quotas.

Choices where nothing is documented: what the lines alone can tell is a ValidationException of
CreateModel at once, since nothing is gained by finding out later. An image counts for an anomaly
label when its mask has that label and no other. A test data set without any mask is not asked for
images of each label.
"""

from __future__ import annotations

import json
from collections import Counter

from edged.config import Quotas
from edged.core.errors import InvalidInput, WrongState
from edged.core.lifecycle import CHANGEABLE
from edged.rest.context import Context
from edged.rest.datasets import resource_of
from edged.store.catalog import EntryFilter, Project
from edged.wire.manifest import ANOMALY, kind_of, mask_of

WORDS = ("normal", "anomaly")
ALL = 10_000_000


def lines_of(context: Context, project: Project) -> dict[str, list[str]]:
    """The labelled lines of each data set, by its type. Raises WrongState and InvalidInput."""
    rows = {row.type: row for row in context.catalog.datasets(project)}
    if "train" not in rows:
        raise WrongState(
            f"The project {project.name} has no train dataset: create one first.",
            resource_of(project, "train"),
        )
    quotas, two = context.quotas, "test" in rows
    least = {
        "train": (quotas.train_normal, 0) if two else (quotas.single_normal, quotas.single_anomaly),
        "test": (quotas.test_normal, quotas.test_anomaly),
    }
    found: dict[str, list[str]] = {}
    for kind, row in rows.items():
        where = f"The {kind} dataset of {project.name}"
        if row.status not in CHANGEABLE:
            raise WrongState(
                f"{where} is {row.status.value}: a model can be trained on complete datasets only.",
                resource_of(project, kind),
            )
        _, normal, anomaly = context.catalog.statistics(row.id)
        for count, needed, word in zip((normal, anomaly), least[kind], WORDS, strict=True):
            if count < needed:
                raise InvalidInput(
                    f"{where} has {count} images labeled {word}; at least {needed} are needed."
                )
        wanted = EntryFilter(labeled=True)
        found[kind] = [line for _, line in context.catalog.entries(row.id, wanted, 0, ALL)]
    _check_masks(project, found, quotas)
    return found


def _check_masks(project: Project, lines: dict[str, list[str]], quotas: Quotas) -> None:
    """Raise InvalidInput unless masks and their labels keep to the quotas."""
    labels = {
        kind: _labels(project, kind, found, quotas.labels_per_mask) for kind, found in lines.items()
    }
    if not labels["train"]:
        return  # without masks there it becomes a classification model
    names = {name for kind in labels.values() for each in kind for name in each}
    if len(names) > quotas.labels:
        raise InvalidInput(
            f"The project {project.name} has {len(names)} anomaly labels; {quotas.labels} are "
            "allowed."
        )
    most = {"train": quotas.segmentation_train_images, "test": quotas.segmentation_test_images}
    least = quotas.two_per_label if "test" in lines else quotas.single_per_label
    for kind, found in lines.items():
        where = f"The {kind} dataset of {project.name}"
        if len(found) > most[kind]:
            raise InvalidInput(
                f"{where} has {len(found)} labeled images; a segmentation model may have "
                f"{most[kind]}."
            )
        alone = Counter(next(iter(each)) for each in labels[kind] if len(each) == 1)
        for name in sorted(names) if labels[kind] else ():
            if alone[name] < least:
                raise InvalidInput(
                    f"{where} has {alone[name]} images with the anomaly label {name} and no other; "
                    f"at least {least} are needed."
                )


def _labels(project: Project, kind: str, lines: list[str], most: int) -> list[set[str]]:
    """The anomaly labels of each mask of an anomalous image."""
    found = []
    for line in lines:
        entry = json.loads(line)
        mask = mask_of(entry) if kind_of(entry, "entry") == ANOMALY else None
        if mask is None:
            continue
        names = {name for name, _ in mask.defects}
        if len(names) > most:
            raise InvalidInput(
                f"The {kind} dataset of {project.name}: {mask.reference} has {len(names)} anomaly "
                f"labels; a mask may have {most}."
            )
        found.append(names)
    return found
