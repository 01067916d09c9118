"""The operator's door: `everloop …`. Results on stdout, logs on stderr; exit 0 done, 1 failed, 2 wrong usage, 3 refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from everloop.domain.errors import EverloopError, PromotionRefused

app = typer.Typer(
    help="Keep tabular models fit: train, check, register, package, serve, watch, retrain.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for machines.")]
Model = Annotated[str, typer.Argument(help="The model's name: its folder under models/.")]


@app.command()
def up(deploy: Annotated[bool, typer.Option(help="Deploy prefect.yaml once the server is ready.")] = True) -> None:
    """Start the Prefect server, a worker, the MLflow UI and every model's service; keep them alive until Ctrl-C."""
    from cli.stack import Stack
    from everloop.settings import settings

    with Stack(settings()) as stack:
        if deploy:
            stack.deploy()
        for line in stack.addresses():
            print(line, flush=True)  # noqa: T201
        stack.wait()


@app.command()
def down() -> None:
    """Stop a running `everloop up` of this home, also one whose terminal is gone."""
    from cli.stack import shut_down
    from everloop.settings import settings

    shut_down(settings())
    print("stopped")  # noqa: T201


@app.command()
def serve(model: Model) -> None:
    """Serve the champion of a model; waits for the first one."""
    from cli.serve import serve_champion

    serve_champion(model)


@app.command()
def restart(model: Model) -> None:
    """Restart a model's service under a running `everloop up`: it comes back with the champion's bento."""
    from cli.stack import restart_service
    from everloop.settings import settings

    restart_service(settings(), model)
    print(f"the service of {model} restarts")  # noqa: T201


@app.command()
def rollback(
    model: Model,
    reason: Annotated[str, typer.Option(help="Why; kept with the version.", prompt=True)],
    by: Annotated[str, typer.Option(help="Who; default: the user of this shell.")] = "",
    as_json: Json = False,
) -> None:
    """Make the previous version champion again, and wait until every worker serves it."""
    from cli.rollback import roll_back_and_wait

    _print_table([roll_back_and_wait(model, reason=reason, by=by)], as_json)


@app.command()
def status(as_json: Json = False) -> None:
    """What is registered, live and served, model by model."""
    from cli.status import model_status
    from everloop.settings import settings

    _print_table([model_status(name) for name in settings().model_names()], as_json)


@app.command()
def decisions(model: Model, as_json: Json = False) -> None:
    """Every decision about a model's windows, oldest first."""
    from cli.status import decision_rows

    _print_table(decision_rows(model), as_json)


@app.command()
def resume(
    model: Model,
    by: Annotated[str, typer.Option(help="Who looked; default: the user of this shell.")] = "",
) -> None:
    """Let a model be retrained again after too many rejected challengers in a row: somebody has looked at them."""
    import getpass

    from everloop.settings import settings
    from tasks.wiring import decisions

    settings().spec(model)
    who = by or getpass.getuser()
    count = decisions().acknowledge(model, who)
    print(f"{count} rejected challengers of {model} acknowledged by {who}")  # noqa: T201


@app.command()
def replay(
    model: Model,
    initial: Annotated[float, typer.Option(help="Share of the rows that is known at the start.")] = 0.2,
    windows: Annotated[int, typer.Option(help="Windows that the rest is cut into.")] = 50,
    window_rows: Annotated[int | None, typer.Option(help="Rows a window; over --windows.")] = None,
    window_span: Annotated[str | None, typer.Option(help="Event time a window, such as 1d; over --windows.")] = None,
    begin: Annotated[str | None, typer.Option("--from", help="First event time to replay.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Event time at which the replay ends.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="'spec', 'default', a TOML file with [monitor], or 'key=value,key=value' over the spec's; may be repeated. "
            "Default: the spec's and, if it decides otherwise, the shipped default."
        ),
    ] = None,
    label_delay: Annotated[str, typer.Option(help="When labels come: a number of windows, or a duration.")] = "0",
    recent: Annotated[
        float | None, typer.Option(help="Share of the rows that is recent history; default: --initial.")
    ] = None,
    change_point: Annotated[
        list[str] | None,
        typer.Option(help="Where something changed: a window's number, row:9000, or a time; may be repeated."),
    ] = None,
    alarm_within: Annotated[
        int, typer.Option(min=0, help="Windows after a change in which an alarm is a true one.")
    ] = 10,
    served: Annotated[
        bool, typer.Option(help="Replay captured predictions with labels instead of the source.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Folder of replay.json, .png and .html; default: under the home.")
    ] = None,
    log: Annotated[bool, typer.Option(help="Keep the replay in MLflow, experiment <model>.replay.")] = True,
    as_json: Json = False,
) -> None:
    """Show what a retraining policy would have done on a model's own history, beside never and always retraining."""
    from cli.replay import plan_of, replay_model

    plan = plan_of(
        initial=initial,
        windows=windows,
        window_rows=window_rows,
        window_span=window_span,
        label_delay=label_delay,
        recent=recent,
    )
    replay_model(
        model,
        plan,
        folder=report,
        log=log,
        as_json=as_json,
        policies=policy or [],
        served=served,
        begin=begin,
        end=end,
        changes=change_point or [],
        alarm_within=alarm_within,
    )


@app.command("tune-policy")
def tune_policy(
    model: Model,
    initial: Annotated[float, typer.Option(help="Share of the rows that is known at the start.")] = 0.2,
    windows: Annotated[int, typer.Option(help="Windows that the rest is cut into.")] = 50,
    share: Annotated[float, typer.Option(help="Share of the windows to choose on; the others report.")] = 0.6,
    max_retrains: Annotated[
        int | None, typer.Option(min=0, help="Retrainings allowed while choosing; default: three in ten windows.")
    ] = None,
    label_delay: Annotated[str, typer.Option(help="When labels come: a number of windows, or a duration.")] = "0",
    served: Annotated[bool, typer.Option(help="Use captured predictions with labels instead of the source.")] = False,
    as_json: Json = False,
) -> None:
    """Choose the retraining policy's few knobs on the early part of a history and report on the later part."""
    from cli.replay import plan_of
    from cli.tune import tune_model

    plan = plan_of(initial=initial, windows=windows, label_delay=label_delay)
    tune_model(model, plan, share=share, most_retrains=max_retrains, served=served, as_json=as_json)


@app.command()
def check(models: Annotated[list[str] | None, typer.Argument(help="Names; default: all.")] = None) -> None:
    """Check specs without running anything."""
    from everloop.domain.pipelines import check_parameters
    from everloop.settings import settings

    for name in models or settings().model_names():
        check_parameters(settings().spec(name))
        print(f"{name}: ok")  # noqa: T201


@app.command()
def spec() -> None:
    """Print every key of model.toml as Markdown: docs/spec.md."""
    from cli.spec_docs import spec_markdown

    print(spec_markdown(), end="")  # noqa: T201


@app.command()
def demo(
    home: Annotated[
        Path | None, typer.Option(help="Keep everything here; default: a temporary folder, removed at the end.")
    ] = None,
    report: Annotated[Path, typer.Option(help="Folder of report.html and report.json.")] = Path("demo"),
    rows: Annotated[int | None, typer.Option(min=2000, help="Replay only so many hours.")] = None,
) -> None:
    """Run the whole loop on real data with real servers, and report what happened."""
    from cli.demo import run_demo

    raise typer.Exit(run_demo(home=home, report=report, rows=rows))


def main() -> None:
    """The console script: an EverloopError is one sentence and exit code 1, a refusal 3."""
    try:
        app()
    except PromotionRefused as exc:
        print(exc, file=sys.stderr)  # noqa: T201
        sys.exit(3)
    except EverloopError as exc:
        print(exc, file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _print_table(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2, default=str))  # noqa: T201
        return
    if not rows:
        print("none")  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    main()
