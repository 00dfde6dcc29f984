"""The PyPI package lookoutvision 0.1.10 through a model's life, as a user's script calls it.

    AWS_...=... python tests/support/lookoutvision_life.py PROJECT BUCKET MANIFEST PICTURES

Prints a JSON object as its last line. The package sleeps a minute between two questions; here its
sleeps are cut to PAUSE, and apart from that it runs as it was published.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import boto3
from lookoutvision.lookoutvision import LookoutForVision

PAUSE = 0.2


def main() -> int:
    rest = threading.Event()
    setattr(time, "sleep", lambda seconds: rest.wait(min(seconds, PAUSE)))  # noqa: B010
    project, bucket, manifest, pictures = sys.argv[1:]
    lookout = LookoutForVision(project)
    lookout.create_project()
    lookout.create_project()  # it is there: the package goes by the words of the exception
    sets = {"train": {"bucket": bucket, "key": manifest}}
    dataset = lookout.create_datasets(sets)
    trained = lookout.fit(bucket, "out_", train_and_test=True)
    hosted = lookout.deploy(min_inf_units=2)
    verdicts = {}
    for path in sorted(Path(pictures).iterdir()):
        kind = "image/png" if path.suffix == ".png" else "image/jpeg"
        verdicts[path.name] = lookout.predict(local_file=str(path), content_type=kind)
    aws = boto3.client("lookoutvision")
    at = {"ProjectName": project, "ModelVersion": "1"}
    arn = aws.describe_model(**at)["ModelDescription"]["ModelArn"]
    aws.tag_resource(ResourceArn=arn, Tags=[{"Key": "line", "Value": "3"}])
    tags = aws.list_tags_for_resource(ResourceArn=arn)["Tags"]
    wanted = {
        "S3OutputLocation": {"Bucket": bucket, "Prefix": "bundles/"},
        "ComponentName": project,
        "TargetPlatform": {"Os": "LINUX", "Arch": "X86_64"},
    }
    job = aws.start_model_packaging_job(**at, Configuration={"Greengrass": wanted})["JobName"]
    status = ""
    while status not in ("SUCCEEDED", "FAILED"):
        asked = aws.describe_model_packaging_job(ProjectName=project, JobName=job)
        status = asked["ModelPackagingDescription"]["Status"]
        rest.wait(PAUSE)
    stopped = lookout.stop_model()
    # The package gives up at the test data set that there never was; the rest is one's own.
    lookout.delete_lookoutvision_project(project)
    aws.delete_model(**at)
    aws.delete_project(ProjectName=project)
    left = [each["ProjectName"] for each in aws.list_projects()["Projects"]]
    print()
    shown = {"dataset": dataset, "trained": trained, "hosted": hosted, "verdicts": verdicts}
    more = {"tags": tags, "packaged": status, "stopped": stopped, "left": left}
    print(json.dumps({**shown, **more}, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
