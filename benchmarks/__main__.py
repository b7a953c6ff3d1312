"""The benchmarks by name; without a name all of them.

    python -m benchmarks [step|fit|predict|startup|memory|scaling|data|checkpoint|parallel|tabular
        |threads ...] [--backend cupy] [--out DIR]

Each prints a table and writes NAME.json (with versions and CPU) and NAME.png to --out.
"""

import argparse
import os
import sys
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

from benchmarks import nets, report
from benchmarks.tabular import PARTS
from benchmarks.worker import Timing
from mlp.parallel.launch import launched

BENCHMARKS = (
    *("step", "fit", "predict", "startup", "memory", "scaling", "data", "checkpoint"),
    *("parallel", "tabular", "threads"),
)
# The shortest run that goes through everything; its numbers mean nothing.
QUICK = {"timing": Timing(rounds=2, seconds=0.002, pause=0.0, patience=0.0), "repeats": 1}


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line names."""
    usual, known = report.Options(), (*nets.WORKLOADS, *nets.KINDS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--backend", default=usual.backend, help="numpy (default) or cupy")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), metavar="DIR")
    parser.add_argument("--mnist", metavar="DIR", help="folder of the four IDX files, for fit")
    parser.add_argument("--workloads", nargs="+", default=(), metavar="W", help=", ".join(known))
    parser.add_argument("--only", nargs="+", default=(), metavar="CONTENDER")
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="a checkout to compare with, for step"
    )
    parser.add_argument("--gb", type=float, default=usual.gb, help="of the table, for data")
    parser.add_argument("--memory", default=usual.memory, help="stated, for data")
    parser.add_argument(
        "--tables", type=Path, metavar="DIR", help="with manifest.json, for tabular"
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=usual.rows, help="at most, for tabular"
    )
    parser.add_argument(
        "--without", nargs="+", default=(), choices=PARTS, help="parts left out, for tabular"
    )
    group = parser.add_argument_group("timing", Timing.__doc__)
    for field in fields(Timing):
        if field.name == "cpu":
            group.add_argument("--cpu", action="store_true")
            continue
        group.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    parser.add_argument("--repeats", type=int, default=usual.repeats, help="of a fit, its seeds")
    given = vars(parser.parse_args(arguments))
    names, out = given.pop("names"), given.pop("out")
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    for workload in given["workloads"]:
        if workload not in known:
            parser.error(f"unknown workload {workload!r}; known: {', '.join(known)}")
        if workload in nets.KINDS and names != ["step"]:
            parser.error(f"workload {workload!r} goes with step alone")
    if given["against"]:
        if names != ["step"]:
            parser.error("--against DIR goes with step alone")
        if not (given["against"] / "benchmarks" / "step.py").is_file():
            parser.error(f"--against {given['against']} has no benchmarks/step.py")
    timing = Timing(**{field.name: given.pop(field.name) for field in fields(Timing)})
    options = report.Options(**given, timing=timing)
    if options.quick:
        options = replace(options, **QUICK)

    if launched(os.environ)[1]:  # rank 0 prints for all
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, until the process ends
    print(f"{report.device(options.backend)}, float32; {report.cpu()}")
    for variable, value in report.environment().items():
        print(f"the environment has {variable}={value}")
    for name in names or BENCHMARKS:
        module = import_module(f"benchmarks.{name}")
        where = report.machine() | {"device": report.device(options.backend)}
        results = module.run(options)
        if results:
            report.save(out, name, {"machine": where, "results": results}, module.draw)


if __name__ == "__main__":
    main()
