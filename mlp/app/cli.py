"""The command line: one TOML file in, a folder with the trained network out.

Everything heavy is imported by the command that needs it, so that ``mlp --help`` answers at once.
Exit codes: 0, 1 for a check that fails, 2 for a mistake that the message explains, and for a run
that a signal ended 128 and its number: 130 after Ctrl-C, 143 after SIGTERM (`mlp.app.endings`).
"""

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mlp.app.terminal import printable, say

if TYPE_CHECKING:
    from mlp.app.runs import Finished


class Commands(TyperGroup):
    """The commands; a user's mistake is one message on standard error and exit code 2, and a
    warning is one line there."""

    def main(self, args: Any = None, *rest: Any, **named: Any) -> Any:
        """An output that cannot be written, as on a full disk, is a mistake as others are."""
        try:
            return super().main(args, *rest, **named)
        except OSError as error:
            if "--debug" in (sys.argv[1:] if args is None else args):
                raise
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, until the process ends
            _say_error(f"{error.filename or 'the output'}: {error.strerror or error}")
            sys.exit(2)

    def invoke(self, ctx: Any) -> Any:
        from mlp.parallel.group import said_elsewhere

        try:
            with warnings.catch_warnings():
                if not ctx.params["debug"]:
                    warnings.showwarning = _say_warning
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            if ctx.params["debug"]:
                raise
            say("mlp: interrupted", err=True)
            raise typer.Exit(130) from error
        except _mistakes() as error:
            if ctx.params["debug"]:
                raise
            if not said_elsewhere(error):
                _say_error(str(error))
            raise typer.Exit(2) from error
        except MemoryError as error:
            if ctx.params["debug"]:
                raise
            what = f" ({error})" if str(error) else ""
            _say_error(f"out of memory{what}; use less data, or end what else uses the memory")
            raise typer.Exit(2) from error


def _mistakes() -> tuple[type[Exception], ...]:
    from backends import BackendError
    from mlp.errors import InputError

    return InputError, BackendError


def _say_error(message: str) -> None:
    say(f"mlp: error: {message}", err=True)


def _say_warning(
    message: Warning | str,
    category: Any,
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    from mlp.errors import Note

    what = "note" if issubclass(category, Note) else "warning"
    say(f"mlp: {what}: {message}", err=True)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

BackendFlag = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="numpy, cupy, cupy:1, torch, auto, ...; default: the file's, $MLP_BACKEND, numpy.",
    ),
]
ThreadsFlag = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads of matrix products on the CPU; default: the file's, else to train as many as "
        "gain by it, otherwise all cores.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, as training.epochs=5 or layers.0.units=32; may be repeated.",
    ),
]
PresetName = Annotated[
    str | None,
    typer.Option(
        "--preset", metavar="NAME", help="Layers and training that FILE leaves out: tabular."
    ),
]
SettingsFile = Annotated[Path, typer.Argument(metavar="FILE", help="The TOML file.")]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder of a run, or a model file.")
]
DataFile = Annotated[
    Path, typer.Argument(metavar="DATA", help="A table: .csv, .parquet, .npz, ...")
]
ArrayName = Annotated[
    str | None,
    typer.Option("--inputs", metavar="NAME", help="Of an .npz file: the array of the inputs."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        import mlp

        say(f"array-mlp {mlp.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Train multi-layer perceptrons from one TOML file, on NumPy or CuPy by one flag.

    Start with: mlp init my.toml
    """


# ------------------------------------------------------------------------------ train


@app.command()
def train(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The TOML file; with --resume the run's may do."),
    ] = None,
    backend: BackendFlag = None,
    threads: ThreadsFlag = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run's folder; default: runs/NAME, runs/NAME-2, ..."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on from where this run stands, in its folder; auto: or begin it.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what it takes of the device's memory, and stop.")
    ] = False,
    preset: PresetName = None,
) -> None:
    """Train as FILE says, into a folder of its own."""
    from mlp.app.config import load
    from mlp.app.progress import progress
    from mlp.app.run_folder import SETTINGS, is_run
    from mlp.app.runs import plan_run, run_name, train_run
    from mlp.app.standing import Over, in_run
    from mlp.errors import InputError
    from mlp.parallel import world
    from mlp.parallel.group import ending_all

    group = world()
    quiet = quiet or group.rank > 0
    auto = resume == Path("auto")
    if auto and file is not None:
        place = out or Path("runs") / run_name(file)
        resume, out = (place, None) if is_run(place) else (None, place)
    if file is None and resume is not None and not auto:
        file = in_run(resume, SETTINGS)
    if file is None:
        raise InputError("train: name the TOML file; `mlp init my.toml` writes a first one")
    with group.together():
        config = load(file, [*_with_preset(preset), *_with_threads(overrides, threads)])
    if plan:
        found = plan_run(config, backend)
        if group.rank == 0:
            say(str(found))
        found.check()
        return
    try:
        with progress(quiet) as shown, ending_all(group):
            finished = train_run(
                config, out=out, backend=backend, resume=resume, callbacks=shown, group=group
            )
    except Over as over:  # that is what a script which asks again and again waits for
        if not auto:
            raise
        if not quiet:
            say(f"{over}")
        return
    if finished is None:  # rank 0 says what there is to say
        return
    if finished.fault:
        _say_error(f"{finished.fault}; what was written is in {finished.folder}")
        raise typer.Exit(2)
    if finished.result.diverged or finished.result.out_of_memory:
        message = f"{finished.result.stopped}; the run is in {finished.folder}"
        if not finished.result.diverged:
            again = f"mlp train --resume {_quoted(finished.folder)} --set training.batch_size=N"
            message += f"; go on by {again}"
        _say_error(message)
        raise typer.Exit(2)
    if not quiet:
        try:
            say(_summary(finished, config.data.file))
            if sys.stdout is not None:
                sys.stdout.flush()
        except (OSError, ValueError) as error:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, until the process ends
            what = getattr(error, "strerror", None) or error
            _say_error(f"no output ({what}); the run is in {finished.folder}")
    if finished.code:
        raise typer.Exit(finished.code)


def _with_preset(preset: str | None) -> list[str]:
    """The flag as the setting that it stands for; what --set says comes after it."""
    return [] if preset is None else [f"model.preset={preset}"]


def _with_threads(overrides: list[str] | None, threads: int | None) -> list[str]:
    """The flag is the setting of its name, the last word on it."""
    return [*(overrides or []), *([] if threads is None else [f"threads={threads}"])]


def _summary(finished: "Finished", data: str) -> str:
    """How good, why it ended, how long, where, and what to type next."""
    metrics, folder = finished.metrics, finished.folder
    preprocessing = finished.result.model.preprocessing
    names: list[str] = ["train", "validation", "test"]
    parts = {name: metrics[name] for name in names if name in metrics}
    epochs, speed = metrics["epochs"] - metrics["epochs_before"], metrics["samples_per_second"]
    lines = [
        "",
        _metrics_table(parts),
        "",
        *([f"columns  {preprocessing.summary()}"] if preprocessing is not None else []),
        f"stopped  {metrics['stopped']}",
        f"time     {metrics['seconds']:.1f} s for {epochs} epochs"
        + (f", {speed:,} samples/s" if speed else "")
        + f" on {metrics['backend']} ({metrics['device']})",
        f"folder   {folder}",
        f"next     mlp predict {_quoted(folder)} {_quoted(data)}",
    ]
    if finished.interrupted:
        lines[-1] = f"next     mlp train --resume {_quoted(folder)}"
    if any("loss" not in values for values in parts.values()):
        lines.append("note     memory did not suffice to measure all; `mlp evaluate` may, later")
    return "\n".join(lines)


def _on_a_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _metrics_table(parts: dict[str, dict[str, Any]]) -> str:
    """A line for each part of the data, a column for each number."""
    columns = list(dict.fromkeys(name for values in parts.values() for name in values))
    rows = [["", *columns]]
    for name, values in parts.items():
        rows.append([name, *(_number(values.get(column, "-")) for column in columns)])
    return _aligned(rows)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _quoted(path: object) -> str:
    import shlex

    return shlex.quote(str(path))


# ------------------------------------------------------------------------------ runs, verify


@app.command()
def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What the runs are in, or one of them.")
    ] = Path("runs"),
) -> None:
    """List runs: how each ended or whether it is under way, epochs, lowest loss, since when."""
    from mlp.app.run_list import HEAD, runs_in

    rows = [HEAD, *([printable(cell) for cell in row] for row in runs_in(folder))]
    say("\n".join("  ".join(cells).rstrip() for cells in _padded(rows)))


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
) -> None:
    """Check all files of a run against the checksums they were written with.

    Exit code 1 if something is damaged or missing.
    """
    from mlp.app.run_list import verified

    damaged = 0
    for name, wrong in verified(run):
        damaged += bool(wrong)
        say(f"{name}: {wrong or 'whole'}")
    raise typer.Exit(1 if damaged else 0)


# ------------------------------------------------------------------------------ predict, evaluate


@app.command()
def predict(
    run: RunFolder,
    data: DataFile,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=".csv, or .npy for the outputs alone; default: stdout."),
    ] = None,
    inputs: ArrayName = None,
    backend: BackendFlag = None,
    threads: ThreadsFlag = None,
) -> None:
    """Predict for DATA with a trained run.

    As CSV: the label and the probability of each class, or numbers in the units of the targets.
    """
    from mlp.app import prediction_table as predictions
    from mlp.app.prepare import read_new
    from mlp.app.runs import load_run
    from mlp.threads import limited

    if out is not None:
        predictions.check_new(out)
    model, config = load_run(run, backend)
    names = config.data.target if config else None
    rows = read_new(config, data, model, inputs)
    with limited(threads or (config.threads if config else None)):
        if out is None:
            header, lines = predictions.table(model, rows, names)
            text = predictions.as_csv(header, lines)
            if _on_a_terminal():
                say(text, nl=False)
            else:  # data, for a program: as they are
                sys.stdout.write(text)
                sys.stdout.flush()
        else:
            predictions.write(model, rows, names, out)
            say(f"{len(rows)} predictions are in {out}")


@app.command()
def evaluate(
    run: RunFolder,
    data: DataFile,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="The column to predict; default: the run's. May be repeated."
        ),
    ] = None,
    targets_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The targets of DATA, if they are in another file."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="What to measure; default: as the run did. May be repeated."
        ),
    ] = None,
    inputs: ArrayName = None,
    backend: BackendFlag = None,
    threads: ThreadsFlag = None,
) -> None:
    """Measure the predictions for DATA against its targets."""
    from mlp.app.prepare import is_file_of, read_evaluated
    from mlp.app.runs import load_run
    from mlp.errors import InputError
    from mlp.threads import limited

    model, config = load_run(run, backend)
    if targets_file is None and config is not None and config.data.targets_file is not None:
        raise InputError(f"the targets of {data} are not in it: name them by --targets-file FILE")
    if target is None and targets_file is None and config is None:
        raise InputError(f"{run} is a model alone: name the column to predict by --target NAME")
    rows = read_evaluated(config, data, model, targets_file, target, inputs)
    with limited(threads or (config.threads if config else None)):
        chosen: Any = metric or (config.training.metrics if config else None)
        measured = {"rows": len(rows)} | model.evaluate(rows, metrics=chosen)
    say(_metrics_table({printable(data.name): measured}))
    if config is not None and is_file_of(config, data):
        say(f"mlp: note: {data.name} is the file that the run was trained on", err=True)


# ------------------------------------------------------------------------------ convert


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(metavar="IN", help="A file of a table of any kind.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help=".npy, .parquet, .feather or .csv.")],
    array: Annotated[
        str | None, typer.Option(metavar="NAME", help="The array, where IN is an .npz.")
    ] = None,
) -> None:
    """Write the table in IN as OUT, which is of another kind.

    An .npy holds numbers alone, and no names of columns.
    """
    from mlp.data.table_files import check_written, read_table, write_table
    from mlp.errors import InputError, Note

    check_written(out)
    if out.exists():
        raise InputError(f"{out} is there already and stays as it is; name another file")
    table = read_table(data, array=array)
    for note in table.notes:
        warnings.warn(note, Note, stacklevel=2)
    write_table(table, out)
    say(f"{out} has {len(table)} rows of {len(table.names)} columns")


# ------------------------------------------------------------------------------ tables


@app.command()
def inspect(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A table, or the TOML file that names it.")
    ],
    inputs: ArrayName = None,
) -> None:
    """Show what is made of a table: kinds of columns and why, values, gaps, doubts.

    Of a TOML file the table that it names, read as it says.
    """
    from mlp.app.config import load
    from mlp.app.prepare import as_read
    from mlp.app.table_report import report
    from mlp.data.table_files import read_table

    config = load(data) if data.suffix in (".toml", ".json") else None
    file = data if config is None else Path(config.data.file)
    target = (config.data.target or []) if config is not None else []
    names = config.data.array_inputs if config is not None and file.suffix == ".npz" else None
    array = inputs or (names[0] if names else None)
    table = read_table(file, array=array, wanted=target, **as_read(config))
    rows, doubts = report(table, target)
    say(f"{file}: {len(table)} rows, {len(table.columns)} columns\n")
    cells = _padded([list(map(printable, row)) for row in rows])
    say("\n".join("  ".join(row).rstrip() for row in cells))
    for doubt in doubts:
        say(f"mlp: note: {doubt}", err=True)


# ------------------------------------------------------------------------------ check


CHECKED_ROWS = 20


@app.command()
def check(
    file: SettingsFile,
    backend: BackendFlag = None,
    threads: ThreadsFlag = None,
    overrides: Overrides = None,
) -> None:
    """Check the gradient of FILE's network.

    Compares backpropagation with central differences in float64, on some rows of FILE's data.
    """
    import numpy as np

    from mlp.app.config import load
    from mlp.app.prepare import choose_backend, new_model, read_parts
    from mlp.check_gradient import gradient_check
    from mlp.threads import limited

    config = load(file, _with_threads(overrides, threads))
    chosen = choose_backend(backend, config)
    parts = read_parts(config)
    model = new_model(config, parts, chosen)
    some = np.arange(min(CHECKED_ROWS, len(parts.train)))
    with limited(config.threads):
        rows = model.samples(parts.train).rows(some, chosen)
        found = gradient_check(model, rows, seed=config.seed)
    say(f"{found} ({chosen.name}, {len(some)} rows)")
    if not found.passed:
        say("a unit with a kink (relu) can do this by chance: try --set seed=1", err=True)
        raise typer.Exit(1)


@app.command("find-lr")
def find_lr(
    file: SettingsFile,
    backend: BackendFlag = None,
    threads: ThreadsFlag = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="The picture; default: NAME-learning-rate.png."),
    ] = None,
) -> None:
    """Find a learning rate for FILE: a hundred steps in which it grows until the loss does.

    No run is made or changed. The picture needs matplotlib (the extra plot).
    """
    from mlp.app.config import load
    from mlp.app.plots import plot_rates
    from mlp.app.runs import find_rate, run_name

    found = find_rate(load(file, _with_threads(overrides, threads)), backend)
    say(str(found))
    picture = out or Path(f"{run_name(file)}-learning-rate.png")
    if plot_rates(found.rates, found.losses, found.suggestion, picture):
        say(f"the loss over the rate is in {picture}")
    if found.suggestion is None:
        raise typer.Exit(1)


# ------------------------------------------------------------------------------ backends, init


@app.command()
def backends(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="This one alone; with --check the default is auto."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Check it against NumPy and measure it; in two minutes."),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --check: tiny sizes, the times mean nothing.")
    ] = False,
) -> None:
    """List the backends: usable or why not. With --check one report to paste into an issue.

    The report compares kernels, products, gradient and training with NumPy, and says how fast
    products and training steps are; under mpiexec also from how many rows on several processes
    gain. Exit code 1 if a check fails.
    """
    from backends import available, get_backend
    from mlp.memory import megabytes

    if check:
        from mlp.app.backend_ranks import NETS, lines
        from mlp.app.backend_report import QUICK, BackendCheck
        from mlp.app.prepare import on_own_device
        from mlp.parallel import world
        from mlp.parallel.group import ending_all
        from mlp.threads import limited

        group = world()
        backend = on_own_device(get_backend(name or "auto"), group)
        failed: list[str] = []
        if group.rank == 0:
            report = BackendCheck(backend, QUICK if quick else None)
            for line in report.lines():
                say(line)
            failed = report.failed
        with ending_all(group), backend.scope(), limited():
            group.wait()
            about = ((((16, 12, 4), 16),), 2) if quick else (NETS, 20)
            for line in lines(group, backend, *about):
                if group.rank == 0:
                    say(line)
        raise typer.Exit(1 if failed else 0)
    rows = [["backend", "usable", "device", "free", "total", "version"]]
    reasons = []
    for info in available((name,)) if name else available():
        if info.usable:
            memory = megabytes(info.memory.free), megabytes(info.memory.total)
            rows.append([info.name, "yes", info.device, *memory, info.version])
        else:
            rows.append([info.name, "no", "see below", "", "", ""])
            reasons.append((info.name, info.reason))
    if _on_a_terminal():
        _print_table(rows, dict(reasons))
        return
    say("\n".join("  ".join(cells).rstrip() for cells in _padded(rows)))
    for name, reason in reasons:
        say(f"\n{name}: {reason}")


def _padded(rows: list[list[str]]) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def _print_table(rows: list[list[str]], reasons: dict[str, str]) -> None:
    """On a terminal: the reason stands below its backend, whole."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    console = Console()
    console.print(table)
    for name, reason in reasons.items():
        console.print(Text.assemble((name, "bold"), ": ", reason), soft_wrap=False)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(
        "mlp.toml"
    ),
    preset: PresetName = None,
) -> None:
    """Write a first TOML file to start from."""
    from importlib.resources import files

    from mlp.app.presets import check_preset
    from mlp.errors import InputError

    if preset is not None:
        check_preset(preset)
    starter = "starter.toml" if preset is None else f"{preset}.toml"
    text = (files("mlp.app") / starter).read_text(encoding="utf-8")
    try:
        with open(file, "x", encoding="utf-8") as new:
            new.write(text.replace("THIS.toml", _quoted(file)))
    except FileExistsError as error:
        raise InputError(f"{file} is there already; name another file") from error
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror or error}") from error
    say(
        f"{file} is written; name your data in it, or train at once:\n"
        f"mlp train {_quoted(file)} --set data.file=YOURS.csv --set data.target=YOUR_COLUMN"
    )


def main() -> None:
    """The console script."""
    app(prog_name="mlp")
