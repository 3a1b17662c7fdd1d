"""python -m ddpm COMMAND: what is done with runs and data beside training and sampling."""

import argparse
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ddpm", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    export = commands.add_parser(
        "export", help="write a run as a directory that diffusers' DDPMPipeline loads"
    )
    export.add_argument("run", type=Path, metavar="RUN_DIR")
    export.add_argument("out", type=Path, metavar="OUT_DIR")
    import_ = commands.add_parser("import", help="turn a DDPMPipeline directory into a run directory")
    import_.add_argument("pipeline", type=Path, metavar="DIR")
    import_.add_argument("run", type=Path, metavar="RUN_DIR")
    commands.add_parser("inspect", help="say what a data set is: inspect data=OPTION ...", add_help=False)
    cache = commands.add_parser("cache", help="list or clear the prepared data sets of this machine")
    cache.add_argument("action", choices=["list", "clear"])
    cache.add_argument("--dir", type=Path, help="of the cache; $DDPM_CACHE or ~/.cache/ddpm by default")
    doctor = commands.add_parser("doctor", help="examine this installation: mathematics, devices")
    doctor.add_argument("--config-dir", type=Path, metavar="DIR", help="of your own options")
    doctor.add_argument("--allow-targets", nargs="+", default=[], metavar="PACKAGE", help="of your own")
    if sys.argv[1:2] == ["inspect"]:
        _inspect()  # its arguments are Hydra's
    arguments = parser.parse_args()
    try:  # torch is imported after --help and wrong arguments are answered
        if arguments.command == "cache":
            from ddpm.app.cache import clear, list_entries

            sys.exit((list_entries if arguments.action == "list" else clear)(arguments.dir))
        if arguments.command == "doctor":
            if arguments.config_dir is not None and not arguments.config_dir.is_dir():
                parser.error(f"--config-dir {arguments.config_dir}: there is no such directory")
            from ddpm.app.doctor import doctor as examine

            sys.exit(examine(arguments.config_dir, arguments.allow_targets))
        from ddpm.interop.diffusers import export_run, import_pipeline

        if arguments.command == "export":
            print(export_run(arguments.run, arguments.out))
        else:
            print(import_pipeline(arguments.pipeline, arguments.run))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _inspect() -> None:
    from ddpm.app.command_line import Job, run
    from ddpm.app.run_directory import Place

    def prepare(config: dict[str, Any], place: Place) -> Job:
        from ddpm.app.inspect import inspect

        return lambda: inspect(config, place.directory)

    del sys.argv[1]
    run(prepare, "inspect")


if __name__ == "__main__":
    main()
