"""The commands, one module for each group of them. Heavy imports sit in the functions that need them."""

import typer


def application() -> typer.Typer:
    """The whole command line."""
    from keenstream.commands import (
        api_key,
        archive,
        bench,
        cleaner_models,
        dead_letters,
        demo,
        doctor,
        erase,
        evaluate,
        experiment,
        feed,
        ingest,
        models,
        prepare,
        schemas,
        show,
        simulate,
        train,
        train_cleaner,
        train_models,
        worker,
    )
    from keenstream.stack.command import app as stack

    app = typer.Typer(
        name="keenstream",
        help="Learns what each reader wants to read and keeps fresh news ready for it.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        add_completion=False,
    )
    app.add_typer(stack, name="stack")
    app.add_typer(dead_letters.app, name="dead-letters")
    app.add_typer(archive.app, name="archive")
    models.app.add_typer(cleaner_models.app, name="cleaner")
    app.add_typer(models.app, name="models")
    app.add_typer(experiment.app, name="experiment")
    app.add_typer(api_key.app, name="api-key")
    app.add_typer(schemas.app, name="schemas")
    train_models.add_commands(train.app)
    train.app.command("cleaner")(train_cleaner.cleaner)
    app.add_typer(train.app, name="train")
    app.command("evaluate")(evaluate.evaluate)
    app.command("demo")(demo.demo)
    app.command("prepare")(prepare.prepare)
    app.command("worker")(worker.worker)
    app.command("send")(feed.send)
    app.command("ingest")(ingest.ingest)
    app.command("show")(show.show)
    app.command("erase")(erase.erase)
    app.command("simulate")(simulate.simulate)
    app.command("bench", context_settings=bench.PASS_ON, add_help_option=False)(bench.bench)
    app.command("doctor")(doctor.doctor)
    return app
