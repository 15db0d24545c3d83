"""Interpreters without a global lock: the module declares that it needs none, and each of its classes keeps to that."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

from python_common import check

SOURCES = Path(__file__).parents[3] / "bindings/python/src"
INTERPRETERS = ("python3.14t", "python3.13t")


def check_declarations() -> None:
    sources = {path.name: path.read_text() for path in SOURCES.rglob("*.rs")}
    check("gil_used = false" in sources["lib.rs"], "the module does not declare that it needs no global lock")
    for found in (found for text in sources.values() for found in re.findall(r"#\[pyclass\b[^\]]*\]", text)):
        check("frozen" in found, f"{found} can be changed from several threads at once")
        check("unsendable" not in found, f"{found} belongs to one thread")


def skipped() -> dict[str, str]:
    """Why nothing was tried on such an interpreter; nothing if it was."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return {}
    found = [name for name in INTERPRETERS if shutil.which(name)]
    built = [
        name
        for name in found
        if subprocess.run([name, "-c", "import llmspell_state"], capture_output=True, check=False).returncode == 0
    ]
    if not found:
        return {"free threads": f"no interpreter without a global lock here ({' or '.join(INTERPRETERS)})"}
    if not built:
        return {"free threads": f"llmspell_state is not built for {found[0]}"}
    return {"free threads": f"run this program with {built[0]}"}
