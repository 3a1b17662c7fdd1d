"""python -m ddpm COMMAND: what is done with runs and data beside training and sampling."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ddpm", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    export = commands.add_parser("export", help="write a run as a directory that diffusers' DDPMPipeline loads")
    export.add_argument("run", type=Path, metavar="RUN_DIR")
    export.add_argument("out", type=Path, metavar="OUT_DIR")
    import_ = commands.add_parser("import", help="turn a DDPMPipeline directory into a run directory")
    import_.add_argument("pipeline", type=Path, metavar="DIR")
    import_.add_argument("run", type=Path, metavar="RUN_DIR")
    arguments = parser.parse_args()

    from ddpm.interop.diffusers import export_run, import_pipeline  # torch is imported after --help is answered

    try:
        if arguments.command == "export":
            print(export_run(arguments.run, arguments.out))
        else:
            print(import_pipeline(arguments.pipeline, arguments.run))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
