"""The command line. Parses, hands over, and turns an EdgedError into a sentence and an exit code.

Exit codes: 0 done; 1 it failed, the sentence says why; 2 the command line or configuration is
wrong; 3 a worker crashed. Rooms are imported by the command that needs them, so that help is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import sys
from pathlib import Path
from typing import Any, get_args

from edged import __version__
from edged.cli import archive, keys
from edged.cli.output import Bar, print_report
from edged.core.errors import ConfigError, EdgedError, InvalidInput
from edged.core.names import EngineName

ENGINES = get_args(EngineName)
PLANNED = tuple(name for name in ENGINES if name.startswith("tensorrt"))


def main(argv: list[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    arguments = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code: int = arguments.command(arguments)
    except ConfigError as error:
        if getattr(arguments, "json", False):
            print(json.dumps({"ok": False, "problems": list(error.problems)}))
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    except EdgedError as error:
        print(f"edged: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidInput) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        what = "the output" if error.filename is None else error.filename
        print(f"edged: {what} cannot be used ({error.strerror}).", file=sys.stderr)
        return 1
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="edged", description="Visual inspection beside a production line."
    )
    top.add_argument("--version", action="version", version=f"edged {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run a whole line on rendered parts")
    demo.add_argument("--seconds", type=float, default=20.0)
    demo.add_argument("--output", type=Path, default=Path("demo-output"), metavar="FOLDER")
    demo.add_argument("--json", action="store_true", help="accepted: the last line always is JSON")
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", help="run the daemon")
    run.add_argument("--config", type=Path, required=True, metavar="F")
    run.add_argument(
        "--until-cameras-end", action="store_true", help="end when no camera has more pictures"
    )
    run.add_argument("--json", action="store_true", help="print a summary object at the end")
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="check a configuration file")
    check.add_argument("--config", type=Path, required=True, metavar="F")
    check.add_argument("--json", action="store_true")
    check.set_defaults(command=_check)

    doctor = commands.add_parser("doctor", help="what is installed, what runs here, and why not")
    doctor.add_argument("--config", type=Path, metavar="F", help="for the disk that it names")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(command=_doctor)

    _add_training(commands)
    keys.add_commands(commands)
    archive.add_commands(commands)
    _add_compile(commands)
    detect = commands.add_parser("detect", help="judge pictures")
    detect.add_argument("model", type=Path)
    detect.add_argument("images", type=Path, nargs="+", help="files or folders")
    detect.add_argument("--engine", choices=ENGINES, default="auto")
    detect.add_argument("--heatmaps", type=Path, metavar="FOLDER", help="write overlays here")
    detect.add_argument("--json", action="store_true", help="one object per line")
    detect.set_defaults(command=_detect)
    return top


def _add_training(commands: Any) -> None:
    train = commands.add_parser("train", help="train a model on pictures")
    train.add_argument("images", type=Path, help="folder (normal/, anomaly/CLASS/) or manifest")
    train.add_argument("--output", type=Path, required=True, metavar="MODEL")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument(
        "--side", type=int, metavar="PX", help="input of about PX x PX (default: chosen)"
    )
    train.add_argument(
        "--backbone", type=Path, metavar="ONNX", help="another network for the features"
    )
    _add_budget(train)
    train.add_argument("--memory", type=int, default=4096, metavar="MB", help="cap (default 4096)")
    train.add_argument("--name", help="the model's name (default: the output folder's)")
    train.add_argument("--json", action="store_true")
    train.set_defaults(command=_train)

    threshold = commands.add_parser(
        "threshold", help="change a model's threshold; the change is recorded"
    )
    threshold.add_argument("model", type=Path)
    threshold.add_argument("--value", type=float, metavar="T", help="from 0 to 1")
    _add_budget(threshold)
    threshold.add_argument("--reason", default="", help="why; required with --value")
    threshold.add_argument("--json", action="store_true")
    threshold.set_defaults(command=_threshold)

    evaluate = commands.add_parser("evaluate", help="judge labelled pictures and report")
    evaluate.add_argument("model", type=Path)
    evaluate.add_argument("images", type=Path)
    evaluate.add_argument("--report", type=Path, metavar="FILE", help="write an HTML page here")
    evaluate.add_argument("--engine", choices=ENGINES, default="auto")
    evaluate.add_argument("--json", action="store_true")
    evaluate.set_defaults(command=_evaluate)


def _add_compile(commands: Any) -> None:
    make = commands.add_parser("compile", help="build a model's TensorRT plan ahead of time")
    make.add_argument("model", type=Path)
    make.add_argument("--config", type=Path, metavar="F", help="of the daemon that will use it")
    make.add_argument("--engine", choices=PLANNED, help="default: the model's there, or tensorrt")
    make.add_argument("--batch", type=int, metavar="N", help="the largest (as there, or 8)")
    make.add_argument("--memory", type=int, default=6144, metavar="MB", help="cap (default 6144)")
    make.add_argument("--json", action="store_true")
    make.set_defaults(command=_compile)


def _add_budget(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--false-rejects", type=float, metavar="RATE", help="threshold: at most so many, as 0.01"
    )
    command.add_argument(
        "--escapes", type=float, metavar="RATE", help="threshold: at most so many, as 0.05"
    )
    command.add_argument("--confidence", type=float, default=0.95, help="of the budget")


def _demo(arguments: argparse.Namespace) -> int:
    from edged.tools.demo.run import demo

    report = demo(arguments.seconds, arguments.output.resolve())
    print(json.dumps(report))
    whole = report["mqtt_received"] == report["grpc_received"] == report["inspections"]
    return 0 if whole else 1


def _run(arguments: argparse.Namespace) -> int:
    from edged.config.load import load
    from edged.daemon import logs
    from edged.daemon.app import App

    config = load(arguments.config)
    logs.configure(config.log.level, config.log.format)
    _take_descriptors()
    app = App(config, arguments.until_cameras_end)
    app.run()
    if arguments.json:
        print(json.dumps(app.summary.totals()))
    return 3 if app.failed else 0


def _take_descriptors() -> None:
    """As many open files as this process may have: clients that connect must not use them up."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _check(arguments: argparse.Namespace) -> int:
    from edged.tools.check import check

    config = check(arguments.config)
    facts = {"ok": True, "models": len(config.models), "cameras": len(config.cameras)}
    words = f"{arguments.config}: good: {facts['models']} models, {facts['cameras']} cameras"
    print(json.dumps(facts) if arguments.json else words)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from edged.config import Config
    from edged.config.load import load
    from edged.tools.doctor import examine

    whole = load(arguments.config) if arguments.config else Config()
    found = examine(whole.state_dir)
    if arguments.json:
        print(json.dumps(found))
        return 0
    for section, facts in found.items():
        print(section)
        for name, value in facts.items():
            print(f"    {name:24} {value}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from edged.tools.training_job import TrainingJob

    output = arguments.output.resolve()
    cache = output.with_name(f".{output.name}.features")
    request = {
        "images": str(arguments.images),
        "output": str(arguments.output),
        "name": arguments.name or output.name,
        "seed": arguments.seed,
        "false_rejects": arguments.false_rejects,
        "escapes": arguments.escapes,
        "confidence": arguments.confidence,
        "side": arguments.side,
        "backbone": str(arguments.backbone) if arguments.backbone else None,
        "cache": str(cache),
    }
    job = TrainingJob(request, arguments.memory)
    try:
        with Bar(arguments.json) as bar:
            report = job.run(bar.show)
    finally:
        if cache.exists():
            print(
                f"edged: features are kept in {cache}: the same command goes on from there.",
                file=sys.stderr,
            )
    print_report(report, arguments.json)
    return 0


def _compile(arguments: argparse.Namespace) -> int:
    from edged.config.load import load
    from edged.engines.choose import EngineRequest
    from edged.tools import judge
    from edged.tools.plan_build import compiled

    if arguments.batch is not None and not 1 <= arguments.batch <= 64:
        raise InvalidInput(f"batch {arguments.batch}: give a whole number from 1 to 64.")
    state, folder = judge.user_state(), arguments.model.resolve()
    engine, batch = arguments.engine, arguments.batch
    if arguments.config:
        config = load(arguments.config)
        state = config.state
        mine = next((m for m in config.models if m.path.resolve() == folder), None)
        if mine is None and not folder.is_relative_to(state.path.resolve()):
            named = ", ".join(str(m.path) for m in config.models) or "none"
            raise InvalidInput(
                f"{arguments.config} has no model in {folder} (models: {named}): the daemon would "
                "not use its plan."
            )
        if mine is not None:
            engine = engine or (mine.engine if mine.engine in PLANNED else None)
            batch = batch or mine.batch
    request = EngineRequest(engine or PLANNED[0], batch=batch)
    with Bar(arguments.json) as bar:
        report = compiled(folder, request, state.plans, bar.show, arguments.memory)
    print_report(report, arguments.json)
    return 0


def _threshold(arguments: argparse.Namespace) -> int:
    from edged.tools import judge

    report = judge.set_threshold(
        arguments.model,
        arguments.value,
        arguments.false_rejects,
        arguments.escapes,
        arguments.confidence,
        arguments.reason,
    )
    print_report(report, arguments.json)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from edged.tools import judge

    with Bar(arguments.json) as bar:
        report = judge.evaluate(
            arguments.model, arguments.images, arguments.engine, bar.show, arguments.report
        )
    print_report(report, arguments.json)
    return 0


def _detect(arguments: argparse.Namespace) -> int:
    from edged.tools import judge

    failed = False
    for found in judge.detect(
        arguments.model, arguments.images, arguments.engine, arguments.heatmaps
    ):
        failed = failed or "error" in found
        if arguments.json:
            print(json.dumps(found), flush=True)
        elif "error" in found:
            print(found["error"], file=sys.stderr)
        else:
            word = "NOT OK" if found["DetectAnomalyResult"]["IsAnomalous"] else "OK"
            print(f"{word:7}{found['score']:.4f}  {found['name']}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
