"""`ray-rec data`: bring records to the log."""

from pathlib import Path
from typing import Annotated

import typer

from ray_rec.cli.options import AsJson, ConfigFile, Overrides, progress_bars, settings, show

app = typer.Typer(help="Load a known data set, or import your own tables.", no_args_is_help=True)
load_app = typer.Typer(help="Load a data set that a package carries.", no_args_is_help=True)
app.add_typer(load_app, name="load")


@load_app.command("complete-journey")
def complete_journey(
    first_week: Annotated[int, typer.Option(min=1, max=53)] = 46,
    last_week: Annotated[int, typer.Option(min=1, max=53)] = 53,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Append weeks of Complete Journey to the log: what 2,469 households bought and were shown.

    With `features.promotions` items say what was promoted as well.
    """
    from ray_rec.datasets.complete_journey import load
    from ray_rec.log.base import create_standard_topics, open_log

    run = settings(config, overrides)
    with open_log(run.log) as log, progress_bars(as_json) as progress:
        create_standard_topics(log, run.partitions)
        told = bool(run.features.promotions)
        report = load(log, (first_week, last_week), progress=progress, promotions=told)
    show(report, as_json)


@app.command("import")
def import_tables(
    events: Annotated[
        Path, typer.Argument(help="Parquet, CSV or JSON lines with the columns of events.")
    ],
    items: Annotated[
        Path | None,
        typer.Argument(help="The same for items; without it items are known by id only."),
    ] = None,
    exposures: Annotated[
        Path | None, typer.Option(help="The same for what was shown: a row a shown item.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Send bad rows to dead-letter, append the others.")
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Append tables of yours to the log: all rows, or none where one is no valid record."""
    from ray_rec.datasets.tables import import_tables as append
    from ray_rec.log.base import create_standard_topics, open_log

    run = settings(config, overrides)
    with open_log(run.log) as log, progress_bars(as_json) as progress:
        create_standard_topics(log, run.partitions)
        report = append(log, events, items, progress, skip_bad, exposures)
    show(report, as_json)
