"""The README's Python runs, its excerpts are the files', its commands work, and its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codegen.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"^(?:<!-- from (?P<file>\S+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
BLOCKS = list(BLOCK.finditer(README))
EXCERPTS = [(b["file"], b["text"]) for b in BLOCKS if b["file"]]
COMMANDS = [
    line[2:] for b in BLOCKS if b["language"] == "console" for line in b["text"].splitlines() if line[:2] == "$ "
]


def test_python_blocks_run_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    blocks = [b["text"] for b in BLOCKS if b["language"] == "python" and not b["file"]]
    assert blocks
    for text in blocks:
        exec(compile(text, "README.md", "exec"), names)
    assert capsys.readouterr().out


@pytest.mark.parametrize(("file", "text"), EXCERPTS, ids=[f for f, _ in EXCERPTS])
def test_excerpts_are_the_files(file: str, text: str) -> None:
    assert text in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_work(command: str) -> None:
    name, *arguments = shlex.split(command)
    assert name == "codegen"
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.output != "") == (0, True)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert [t for t in targets if not t.startswith("https://") and not (ROOT / t).exists()] == []
