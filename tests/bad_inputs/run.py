"""Every bad input of the tables, and how many end in one line before work starts.

    python tests/bad_inputs/run.py [table ...] [--lines]

A table is a module beside this one with a list `CASES`. `--lines` prints what is said to each input.
"""

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]  # the tables import each other as `bad_inputs`

from bad_inputs.case import Case, line_of  # noqa: E402


def tables() -> dict[str, list[Case]]:
    """Cases by the name of their table."""
    names = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith(("test_", "_")))
    modules = {name: importlib.import_module(f"bad_inputs.{name}") for name in names}
    return {name: module.CASES for name, module in modules.items() if hasattr(module, "CASES")}


def main(words: list[str]) -> int:
    wanted = [word for word in words if word != "--lines"]
    tried, right = 0, 0
    for table, cases in tables().items():
        if wanted and table not in wanted:
            continue
        failures = []
        for case in cases:
            try:
                line = line_of(case)
            except Exception as error:
                failures.append(f"  {table}/{case.name}: {type(error).__name__}: {error}")
            else:
                if "--lines" in words:
                    print(f"  {table}/{case.name}: {line}")
        tried, right = tried + len(cases), right + len(cases) - len(failures)
        print("\n".join([f"{table}: {len(cases) - len(failures)} of {len(cases)}", *failures]), flush=True)
    print(f"{right} of {tried} bad inputs end in one line before work starts")
    return 0 if right == tried else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
