"""Takes each mend of a known pitfall out in turn, and shows which test notices.

python -m tests.breakages
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tests.breakages.copies import broken, copy_to, run_tests
from tests.breakages.pitfalls import PITFALLS
from tests.breakages.table import BREAKAGES


def main() -> None:
    """Print a line for each; ends with 1 if none of a breakage's tests failed."""
    by_name = {breakage.name: breakage for breakage in BREAKAGES}
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_to(Path(folder).resolve())
        for number, (pitfall, names) in enumerate(PITFALLS.items(), start=1):
            print(f"{number:2}. {pitfall}")
            for name in names:
                with broken(copy, by_name[name]):
                    ended = run_tests(copy, by_name[name].tests, by_name[name].adapters)
                failed = re.findall(r"^FAILED (\S+)", ended.stdout, flags=re.MULTILINE)
                unnoticed += not failed
                print(f"      {name}: {failed[0] if failed else 'NO TEST FAILED'}", flush=True)
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
