"""`keenstream simulate`: readers and a news world."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from keenstream.commands.console import JSON_OPTION, console, count_progress, print_json
from schemas.errors import UsageError

if TYPE_CHECKING:
    from offline.simulate import SimulationSettings

ExperimentOption = Annotated[
    bool, typer.Option("--experiment", help="Write the log of an A/B test with a known effect instead.")
]
SetOption = Annotated[
    list[str], typer.Option("--set", help="With --experiment: a setting, such as cold_lift=0.2 or faults.bots=0.01.")
]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="With --experiment: JSON Lines, not Parquet.")]
LiveOption = Annotated[
    bool, typer.Option("--live", help="Play the readers of the folder against a running API instead.")
]
ApiOption = Annotated[
    str | None, typer.Option(help="With --live; default: the running stack's. A key: KEENSTREAM_API_KEY.")
]
Speed = Annotated[float, typer.Option(min=1, help="With --live: simulated seconds in a second, between visits.")]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="With --live: stop after these; default: at Ctrl-C.")]
Concurrency = Annotated[int, typer.Option(min=1, help="With --live: visits at once.")]


def simulate(
    folder: Annotated[Path, typer.Argument(help="Where articles, events, impressions and the truth are written.")],
    readers: Annotated[int, typer.Option(min=1)] = 500,
    events_per_reader: Annotated[float, typer.Option(min=1, help="Mean of the readers who are not cold.")] = 40.0,
    days: Annotated[float, typer.Option(min=0.01, help="Length of the simulated time.")] = 14.0,
    articles: Annotated[
        Path | None, typer.Option(help="Given articles (JSON Lines); default: a generated world.")
    ] = None,
    generated: Annotated[int, typer.Option(min=1, max=50_000, help="Size of the generated world.")] = 4_000,
    gap: Annotated[
        float, typer.Option(min=0, max=1, help="0: pages and searches use headline words; 1: none of them.")
    ] = 0.5,
    noise: Annotated[
        str, typer.Option(help="listed | wide: texts of no interest, few and the same, or many.")
    ] = "listed",
    until_now: Annotated[bool, typer.Option(help="End at this moment instead of a fixed date.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes (unless --until-now).")] = 7,
    experiment: ExperimentOption = False,
    changed: SetOption = [],  # noqa: B006  # typer copies it
    jsonl: JsonLines = False,
    live: LiveOption = False,
    api: ApiOption = None,
    speed: Speed = 3_600.0,
    seconds: Seconds = None,
    concurrency: Concurrency = 32,
    as_json: bool = JSON_OPTION,
) -> None:
    """Simulate readers with drifting interests, noise, duplicates and late events, and write what they did.

    Examples: `keenstream simulate world --readers 1000 --gap 0.5`,
    `keenstream simulate world --live --seconds 60` (after `keenstream ingest world/articles.jsonl`), and
    `keenstream simulate log --experiment --readers 50000 --set cold_lift=0.2 --set faults.bots=0.01`
    """
    if experiment and live:
        raise UsageError("give either --experiment or --live")
    if live:
        _play_live(folder, readers, api, (speed, seconds, concurrency), seed, as_json)
        return
    if experiment:
        _simulate_experiment(folder, [f"readers={readers}", f"days={days}", f"seed={seed}", *changed], jsonl, as_json)
        return
    if changed or jsonl:
        raise UsageError("--set and --jsonl go with --experiment")
    import msgspec

    from offline.simulate import SimulationSettings

    settings = SimulationSettings(
        seed=seed, readers=readers, events_per_reader=events_per_reader, days=days, articles=generated, gap=gap
    )
    settings = msgspec.structs.replace(settings, noise=noise)
    _write_world(folder, settings, articles, until_now, as_json)


def _write_world(
    folder: Path, settings: "SimulationSettings", articles: Path | None, until_now: bool, as_json: bool
) -> None:
    import time

    from offline.simulate import checked, write_simulation
    from schemas.article import Article
    from stream.feeds.jsonl import read_articles

    if until_now:
        from msgspec.structs import replace

        settings = replace(settings, start_ms=int(time.time() * 1000) - settings.span_ms)
    given = [line.row for line in read_articles(articles) if isinstance(line.row, Article)] if articles else None
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("simulating", total=None)
        summary = write_simulation(
            folder,
            checked(settings),
            given,
            progress=lambda done, expected: progress.update(task, completed=done, total=expected),
        )
    if as_json:
        print_json(summary)
    else:
        console.print(summary)


def _simulate_experiment(folder: Path, changed: list[str], jsonl: bool, as_json: bool) -> None:
    from offline.simulate.log_settings import changed_settings
    from offline.simulate.log_writing import CONFIG_FILE, TRUTH_FILE, write_log

    settings = changed_settings(changed)
    with count_progress() as progress:
        task = progress.add_task("readers", total=settings.readers)
        truth = write_log(
            folder,
            settings,
            form="jsonl" if jsonl else "parquet",
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(truth)
        return
    planted = truth.planted
    console.print(f"{planted.exposures:,} exposures and {planted.outcomes:,} outcomes; truth: {folder / TRUTH_FILE}")
    console.print(f"keenstream experiment analyse {folder / CONFIG_FILE} --log {folder} --out report", soft_wrap=True)


def _play_live(
    folder: Path,
    readers: int,
    api: str | None,
    pace: tuple[float, float | None, int],
    seed: int,
    as_json: bool,
) -> None:
    from msgspec.structs import replace

    from keenstream.live.player import LiveSettings
    from keenstream.live.view import as_text, new_run, play
    from keenstream.live.world import read_world
    from keenstream.settings import api_headers, resolve_config

    found = read_world(folder)
    world = replace(found, readers=found.readers[:readers])
    speed, seconds, concurrency = pace
    settings = LiveSettings(run=new_run(), speed=speed, seconds=seconds, concurrency=concurrency)
    configured = resolve_config().api
    address = api or f"http://{configured.host}:{configured.port}"
    summary, interrupted = play(
        settings, world, api=address, headers=api_headers(), seed=seed, console=Console(stderr=True)
    )
    if as_json:
        print_json(summary)
    else:
        console.print(as_text(summary))
    if interrupted:
        raise typer.Exit(130)
