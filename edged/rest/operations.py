"""Which function answers which operation."""

from __future__ import annotations

from edged.rest import datasets, detection, labels, models, packaging, projects, tags
from edged.rest.chain import Behaviour

BEHAVIOURS: dict[str, Behaviour] = {
    "CreateProject": projects.create,
    "ListProjects": projects.list_all,
    "DescribeProject": projects.describe,
    "DeleteProject": projects.delete,
    "CreateDataset": datasets.create,
    "DescribeDataset": datasets.describe,
    "DeleteDataset": datasets.delete,
    "ListDatasetEntries": datasets.list_entries,
    "UpdateDatasetEntries": datasets.update,
    "CreateModel": models.create,
    "ListModels": models.list_all,
    "DescribeModel": models.describe,
    "DeleteModel": models.delete,
    "StartModel": models.start,
    "StopModel": models.stop,
    "DetectAnomalies": detection.detect,
    "StartModelPackagingJob": packaging.start,
    "DescribeModelPackagingJob": packaging.describe,
    "ListModelPackagingJobs": packaging.list_all,
    "TagResource": tags.add,
    "UntagResource": tags.remove,
    "ListTagsForResource": tags.list_all,
    "LabelInspection": labels.label,
}
