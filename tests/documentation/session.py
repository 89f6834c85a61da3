"""A Python shell that runs the snippets of a page, one after the other in one namespace, as a reader would type them.

A named pipe has one snippet a line, as JSON. After each one, a line with `END` and whether it succeeded is written to
standard output.

    python session.py PIPE
"""

import ast
import inspect
import json
import os
import sys
import traceback
from pathlib import Path

END = "\N{END OF TRANSMISSION}"


def run(code: str, names: dict[str, object], number: int) -> bool:
    try:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled = compile(code, f"<snippet {number}>", "exec", flags=flags)
        if compiled.co_flags & inspect.CO_COROUTINE:
            import asyncio

            asyncio.run(eval(compiled, names))
        else:
            exec(compiled, names)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        return False
    return True


def main() -> None:
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python` does
    if "DJANGO_SETTINGS_MODULE" in os.environ:  # as `manage.py shell` does
        import django

        django.setup()
    names: dict[str, object] = {"__name__": "__main__"}
    with Path(sys.argv[1]).open(encoding="utf-8") as pipe:
        for number, line in enumerate(pipe, start=1):
            succeeded = run(json.loads(line), names, number)
            print(f"\n{END}{succeeded}", flush=True)


if __name__ == "__main__":
    main()
