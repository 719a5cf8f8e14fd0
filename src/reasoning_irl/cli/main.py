"""The `reasoning-irl` command: runs the program that its first argument names, with the other arguments."""

import sys
from importlib import import_module

from reasoning_irl import __version__
from reasoning_irl.utils.programs import CONSOLE, PROGRAMS

MODULES = {program.subcommand: program.module for program in PROGRAMS}
LISTED = "\n".join(f"  {program.subcommand:<10}{program.about}" for program in PROGRAMS)
HELP = f"""\
Learn a dense reasoning reward from expert demonstrations (reasoning_irl {__version__}).

usage: {CONSOLE} COMMAND [key=value ...]

commands:
{LISTED}

All but export are Hydra programs: key=value overrides a config's value, --cfg job prints the config, --help lists the
choices. The config decides which algorithm a training command runs. {CONSOLE} export RUN DIR takes two folders.
"""


def main() -> int | None:
    """Returns the exit code; None is success."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    name = sys.argv[1]
    if name == "--version":
        print(f"reasoning_irl {__version__}")
        return 0
    if name not in MODULES:
        print(f"error: there is no command {name}: choose from {', '.join(MODULES)}", file=sys.stderr)
        return 2
    sys.argv = [f"{CONSOLE} {name}", *sys.argv[2:]]  # argv[0] is the program's name in its own messages
    exit_code: int | None = import_module(MODULES[name]).main()
    return exit_code


if __name__ == "__main__":
    raise SystemExit(main())
