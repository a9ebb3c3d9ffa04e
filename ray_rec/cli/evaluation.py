"""`ray-rec evaluate`: models side by side on whatever the log holds."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ray_rec.cli.options import (
    AsJson,
    ConfigFile,
    End,
    Overrides,
    Start,
    progress_bars,
    settings,
    show,
)


def evaluate(
    log: Annotated[str | None, typer.Option(help="Log URL; else the run's log.")] = None,
    protocol: Annotated[
        Literal[
            "prequential",
            "global-time",
            "leave-one-out",
            "item-holdout",
            "next-basket",
            "off-policy",
        ],
        typer.Option(help="What is learned and what is asked."),
    ] = "global-time",
    models: Annotated[
        str | None,
        typer.Option(help="Names by comma, as hybrid,sasrec,text-knn; else the quick baselines."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the JSON and the HTML report.")] = Path(
        "var/evaluation"
    ),
    seeds: Annotated[
        str | None, typer.Option(help="Seeds by comma: for each, what draws is trained anew.")
    ] = None,
    references: Annotated[
        str | None, typer.Option(help="Models by comma that the others are set against.")
    ] = None,
    repeats: Annotated[
        bool, typer.Option("--repeats", help="Items may be recommended again to who took them.")
    ] = False,
    same_time: Annotated[
        bool,
        typer.Option("--same-time", help="Stamps of days: what shares a time is in a fixed order."),
    ] = False,
    last_only: Annotated[
        bool, typer.Option("--last-only", help="Ask for the last event of each user alone.")
    ] = False,
    quantile: Annotated[
        float, typer.Option(help="Share of the events that a split by time learns.")
    ] = 0.9,
    split_at: Annotated[
        str | None, typer.Option(help="First moment that is not learned, instead of a quantile.")
    ] = None,
    passes: Annotated[int, typer.Option(min=1, help="How often the hybrid learns the log.")] = 1,
    twins: Annotated[
        bool, typer.Option("--twins", help="Prequential: the two single-task twins as well.")
    ] = False,
    max_queries: Annotated[int, typer.Option(min=0, help="Questions asked; 0 asks all.")] = 0,
    select: Annotated[
        str | None,
        typer.Option(
            help="Features of click models by comma; else all. For click-head set model.select."
        ),
    ] = None,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance",
            help="What AUC the first click model has from each; click-head, where it is named.",
        ),
    ] = False,
    clip: Annotated[
        float | None, typer.Option(help="Off-policy: no weight counts for more; else all as is.")
    ] = None,
    start: Start = None,
    end: End = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Compare models on the events of the log, whatever was imported."""
    run = settings(config, [*(overrides or ()), *([f"log={log}"] if log else ())])
    from ray_rec.evaluation.asking.splits import TimeOptions
    from ray_rec.evaluation.asking.stretch import moment_ms
    from ray_rec.evaluation.evaluate import evaluate as run_evaluation
    from ray_rec.evaluation.options import EvaluateOptions, quick_models, seeds_of
    from ray_rec.evaluation.reports.evaluation import write_evaluation

    options = EvaluateOptions(
        protocol=protocol,
        models=quick_models(protocol) if models is None else tuple(models.split(",")),
        seeds=seeds_of(seeds),
        references=() if references is None else tuple(references.split(",")),
        repeats=repeats,
        passes=passes,
        twins=twins,
        max_queries=max_queries,
        select=tuple(select.split(",")) if select else (),
        importance=importance,
        clip=clip,
        start=start,
        end=end,
        time=TimeOptions(quantile, last_only, same_time, moment_ms(split_at) if split_at else None),
    )
    with progress_bars(as_json) as bars:
        report = run_evaluation(run, options, bars)
    show(write_evaluation(report, out), as_json)
