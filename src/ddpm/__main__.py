"""ddpm COMMAND: train, sample and measure; look at data and runs, draw figures, exchange models.

`ddpm` and `python -m ddpm` are the same program. Where Hydra composes (train, sample, evaluate, inspect,
encode) arguments are KEY=VALUE; elsewhere they are flags.
"""

import argparse
import sys
from pathlib import Path

COMPOSED = {
    "train": "train a model: train [GROUP=OPTION ...] [KEY=VALUE ...]",
    "sample": "draw from a trained run: sample ckpt=RUN_DIR n=64",
    "evaluate": "measure a trained run: evaluate ckpt=RUN_DIR",
    "inspect": "say what a data set is: inspect data=OPTION ...",
    "encode": "prepare latents of a data set: encode data=OPTION vae=DIR out=FILE",
}
"""Commands whose arguments are Hydra's; each takes --help."""

CACHE = {
    "list": "list the prepared data sets: size, last use, contents, source, and whether they are needed",
    "prune": "remove those that no source needs, then the least recently used beyond LIMIT "
    "(data.cache_limit's default)",
    "clear": "remove all but those in use",
}
"""What can be done about prepared data sets."""


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in COMPOSED:
        from ddpm.app.command_line import run

        run(sys.argv[1])
    from ddpm.app import streams

    streams.make_unfailing()
    parser = _parser()
    arguments = parser.parse_args()
    try:  # torch is imported after --help and wrong arguments are answered
        sys.exit(_do(arguments, parser))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    from ddpm import __version__
    from ddpm.app.figure_arguments import add_figure_arguments

    parser = argparse.ArgumentParser(
        prog="ddpm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"ddpm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMPOSED.items():
        commands.add_parser(name, help=text, add_help=False)
    doctor = commands.add_parser("doctor", help="examine this installation: mathematics, devices")
    doctor.add_argument("--config-dir", type=Path, metavar="DIR", help="of your own options")
    doctor.add_argument("--allow-targets", nargs="+", default=[], metavar="PACKAGE", help="of your own")
    cache = commands.add_parser("cache", help="list, prune or clear the prepared data sets of this machine")
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in CACHE.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--dir", type=Path, help="of the cache; $DDPM_CACHE or ~/.cache/ddpm by default")
        if name == "prune":
            action.add_argument("limit", nargs="?", metavar="LIMIT", help="GB, as 20, or a size, as 500MB")
    export = commands.add_parser(
        "export", help="write a run as a directory that diffusers' DDPMPipeline loads, with its model card"
    )
    export.add_argument("run", type=Path, metavar="RUN_DIR")
    export.add_argument("out", type=Path, metavar="OUT_DIR")
    export.add_argument(
        "--push-to-hub",
        metavar="OWNER/NAME",
        help="send it to the Hugging Face hub; a new repository is public",
    )
    ema = commands.add_parser(
        "ema",
        help="average the weights of a run of ema=power over any length: ema RUN_DIR sigma_rel=0.05",
    )
    ema.add_argument("run", type=Path, metavar="RUN_DIR")
    ema.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="sigma_rel=LENGTH, and step=N")
    import_ = commands.add_parser("import", help="turn a model of another codebase into a run directory")
    import_.add_argument("source", type=Path, metavar="FILE_OR_DIR", help="weights, or a pipeline")
    import_.add_argument("run", type=Path, metavar="RUN_DIR")
    import_.add_argument(
        "told",
        nargs="*",
        metavar="NAME=VALUE",
        help="kind=KIND where it is not found by the names of the weights; and what they do not say, in that "
        "codebase's names, as diffusion_steps=4000",
    )
    sweep = commands.add_parser("sweep", help="what came out of a sweep's jobs, the best first")
    sweep.add_argument("directory", type=Path, metavar="SWEEP_DIR")
    figure = commands.add_parser("figure", help="draw a figure of a run or several: figure schedule RUN_DIR")
    add_figure_arguments(figure)
    report = commands.add_parser("report", help="write a page of runs, sweeps or both, one HTML file")
    report.add_argument("directories", type=Path, nargs="+", metavar="RUN_OR_SWEEP_DIR")
    report.add_argument("--open", action="store_true", help="show it in a browser")
    report.add_argument("--out", type=Path, metavar="FILE", help="report.html in the directory by default")
    report.add_argument("--lang", choices=["en", "zh"], help="of the page; the system's by default")
    demo = commands.add_parser("demo", help="serve a page to play with a run, or with two side by side")
    demo.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    demo.add_argument("--port", type=int, default=7860, help="7860 by default; 0 for any that is free")
    demo.add_argument("--host", default="127.0.0.1", help="address; this machine alone by default")
    demo.add_argument("--open", action="store_true", help="show it in a browser")
    demo.add_argument("--lang", choices=["en", "zh"], help="of the page; the system's by default")
    demo.add_argument("--allow-targets", nargs="+", default=[], metavar="PACKAGE", help="of your own")
    workspace = commands.add_parser(
        "workspace", help="make a W&B workspace of a project, or a report of a sweep"
    )
    workspace.add_argument("target", metavar="ENTITY/PROJECT")
    workspace.add_argument(
        "--report", metavar="SWEEP_DIR_OR_GROUP", help="of a sweep, instead of a workspace"
    )
    workspace.add_argument("--dry-run", type=Path, metavar="FILE", help="write what would be sent, as JSON")
    return parser


def _do(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run a command whose arguments are flags; the exit code."""
    if arguments.command == "cache":
        if arguments.dir is not None and arguments.dir.exists() and not arguments.dir.is_dir():
            parser.error(f"--dir {arguments.dir}: is no directory")
        from ddpm.app.cache import clear, list_entries, parse_limit, prune

        if arguments.action == "prune" and arguments.limit is not None:
            return prune(arguments.dir, parse_limit(arguments.limit))
        return {"list": list_entries, "prune": prune, "clear": clear}[arguments.action](arguments.dir)
    if arguments.command == "sweep":
        from ddpm.app.sweeps.show import look

        return look(arguments.directory)
    if arguments.command == "figure":
        from ddpm.app.figure import draw

        return draw(arguments)
    if arguments.command == "report":
        from ddpm.app import report

        return report.write(arguments.directories, arguments.out, arguments.lang, opens=arguments.open)
    if arguments.command == "demo":
        from ddpm.app import demo

        return demo.serve(arguments)
    if arguments.command == "doctor":
        if arguments.config_dir is not None and not arguments.config_dir.is_dir():
            parser.error(f"--config-dir {arguments.config_dir}: there is no such directory")
        from ddpm.app.doctor import doctor as examine

        return examine(arguments.config_dir, arguments.allow_targets)
    if arguments.command == "workspace":
        from ddpm.app.workspace import workspace

        return workspace(arguments.target, arguments.report, arguments.dry_run)
    from ddpm.app import wide
    from ddpm.app.named_run import check_foreign, check_run

    if arguments.command == "ema":
        from ddpm.app.average import average

        check_run(arguments.run)

        print(average(arguments.run, arguments.settings))
        return 0
    if arguments.command == "export":
        from ddpm.app.export import export

        check_run(arguments.run)
        return export(arguments.run, arguments.out, arguments.push_to_hub)
    from ddpm.interop.checkpoints_of_others import import_model

    check_foreign(arguments.source)
    for word in arguments.told:
        wide.check(word)
    print(import_model(arguments.source, arguments.run, arguments.told))
    print(arguments.run.expanduser().absolute())
    return 0


if __name__ == "__main__":
    main()
