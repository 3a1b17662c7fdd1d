"""The site and the theory beside code: pages say what the source says, and need no network."""

import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, module_of_site

DOCS = ROOT / "docs"
THEORY = sorted((DOCS / "theory").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
CITES = re.compile(r"Ho et al\. 2020, (?:eq\.|algorithms?)")
PROGRAM = re.compile(
    r"(?:^|[`\s/])(?:train|sample|evaluate)\.py\b|\bddpm (?:train|sample|evaluate|inspect)\b"
)


source = module_of_site("source")
beside = module_of_site("beside")


def named_in_theory() -> Iterator[tuple[Path, str, str]]:
    """Every object whose source a page shows: (page, name, the file that the link leads to)."""
    for page in THEORY:
        for name, target in beside.LINK.findall(page.read_text(encoding="utf-8")):
            yield page, name, target


def test_every_object_that_theory_shows_is_in_the_file_that_its_link_leads_to():
    shown = list(named_in_theory())
    assert len(shown) > 40
    for page, name, target in shown:
        assert source.find(name).path == (page.parent / target).resolve(), name


def test_every_line_that_is_such_a_link_is_understood_as_one():
    for page in THEORY:
        text = page.read_text(encoding="utf-8")
        alone = re.findall(r"^\[`ddpm.*$", text, re.MULTILINE)
        assert len(alone) == len(beside.LINK.findall(text)), page.name


@pytest.mark.parametrize("name", ["ddpm.diffusion.process.q_sample", "ddpm.diffusion.samplers.DDIM.reverse"])
def test_what_stands_beside_an_equation_is_the_source_itself(name: str):
    module, _, rest = name.partition(".DDIM")
    found: Any = import_module(module) if rest else import_module(module.rpartition(".")[0])
    for part in (f"DDIM{rest}" if rest else name.rpartition(".")[2]).split("."):
        found = getattr(found, part)
    shown = beside.on_page_markdown(f"before\n\n[`{name}`](some/file.py)\n\nafter")
    first = inspect.cleandoc("x\n" + inspect.getsource(found)).removeprefix("x\n")
    assert first in shown
    assert shown.startswith("before\n\n```")


def test_an_object_that_there_is_not_ends_the_build():
    with pytest.raises(LookupError, match="q_nothing"):
        beside.on_page_markdown("[`ddpm.diffusion.process.q_nothing`](a.py)")


def test_every_public_object_that_cites_an_equation_of_the_paper_stands_in_the_theory():
    text = "\n".join(page.read_text(encoding="utf-8") for page in THEORY)
    names = {found.name for found in map(source.find, re.findall(r"`(ddpm(?:\.\w+){2,})`", text))}
    cited = [
        found
        for found in source.definitions("ddpm", mentioning="2020")
        if CITES.search(" ".join(found.docstring.split()))
    ]
    assert len(cited) > 12
    for found in cited:
        owners = {found.name} | ({found.owner.name} if found.owner else set())
        methods = {name for name in names if name.startswith(f"{found.name}.")}
        assert owners & names or methods, (
            f"{found.name} cites an equation, and no page of docs/theory shows it"
        )


def test_the_numbers_of_the_corrections_are_those_of_the_code():
    (block,) = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "theory" / "corrections.md").read_text(), re.MULTILINE | re.DOTALL
    )
    printed: list[Any] = []
    exec(block, {"print": printed.append})
    comments = re.findall(r"^print.*# (.*)$", block, re.MULTILINE)
    assert len(comments) == len(printed)
    for value, comment in zip(printed, comments, strict=True):
        if comment in ("True", "False"):
            assert str(bool(value)) == comment
            continue
        said = [float(number) for number in re.findall(r"(?<!t = )\b\d[\d.]*(?:e-?\d+)?", comment)]
        assert value.reshape(-1).tolist() == pytest.approx(said, rel=5e-3)


def test_the_table_of_keys_is_current():
    page = module_of_site("keys").page()
    assert (DOCS / "reference" / "keys.md").read_text(encoding="utf-8") == page, (
        "python docs/site/keys.py writes it anew"
    )


def test_every_key_says_what_it_means():
    for row in re.findall(r"^\| `.*\|$", (DOCS / "reference" / "keys.md").read_text(), re.MULTILINE):
        if row.count(" | ") == 3:
            assert not row.endswith("|  |"), row


def bare_brackets(command: str) -> list[str]:
    """The words of a command with a bracket that zsh would take for a pattern."""
    words = re.findall(r"""(?:'[^']*'|"[^"]*"|[^\s'"])+""", command.split(" # ")[0])
    return [word for word in words if "[" in re.sub(r"""'[^']*'|"[^"]*\"""", "", word)]


def test_brackets_are_found_where_they_are_bare():
    assert bare_brackets("python evaluate.py ckpt=A metrics=[fid]") == ["metrics=[fid]"]
    assert not bare_brackets("python evaluate.py ckpt=A 'metrics=[fid]' pip 'ddpm[fid]'  # or [this]")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_has_brackets_that_zsh_takes_for_a_pattern(page: Path):
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shells = [block for kind, block in fenced if kind in ("", "bash", "sh")]
    lines = [line for block in shells for line in block.splitlines() if not line.startswith("#")]
    inline = re.findall(r"`([^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    commands = [line for line in (*lines, *inline) if PROGRAM.search(line)]
    assert not [word for command in commands for word in bare_brackets(command)]


class _Settings(yaml.SafeLoader):
    """mkdocs.yml names a function of Python, which is nothing to a test."""


_Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def test_the_pages_that_the_nav_names_are_there():
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=_Settings)
    named = re.findall(r"[\w/]+\.md", str(settings["nav"]))
    made = {
        "index.md",
        "changelog.md",
        "contributing.md",
        "security.md",
        "logs.md",
        "zh/index.md",
    }  # of files outside docs/
    assert len(named) == len(set(named))
    assert not [name for name in named if name not in made and not (DOCS / name).exists()]


@pytest.mark.slow
def test_the_pictures_of_the_theory_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("theory_figures", DOCS / "theory" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    monkeypatch.setattr(figures, "IMAGES", tmp_path)
    figures.main([])
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (DOCS / "images").glob("theory_*.png")}


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing_from_elsewhere(tmp_path: Path):
    pytest.importorskip("mkdocs", reason="the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    fetched = re.compile(r"""<(?:script|img|iframe)[^>]*\bsrc=["']?https?:|<link[^>]*href=["']?https?:""")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        assert not fetched.search(page.read_text(encoding="utf-8")), page
    for part in ("site/tex-svg.js", "site/iframe-worker.js", "search/search_index.js"):
        assert (tmp_path / part).stat().st_size > 1000
    shown = (tmp_path / "theory" / "forward.html").read_text(encoding="utf-8")
    assert "ddpm.diffusion.process.q_sample · src/ddpm/diffusion/process.py:" in shown
    assert 'href="../zh/theory/forward.html" hreflang="zh"' in shown
    chinese = (tmp_path / "zh" / "theory" / "forward.html").read_text(encoding="utf-8")
    assert "ddpm.diffusion.process.q_sample · src/ddpm/diffusion/process.py:" in chinese
    assert 'href="../../theory/forward.html" hreflang="en"' in chinese
    assert ['<html lang="en"' in shown, '<html lang="zh"' in chinese] == [True, True]
    menus = [re.findall(r"(Tutorial|教程|Theory|理论)\s*<", page) for page in (shown, chinese)]
    assert [menu[0] for menu in menus] == ["Tutorial", "教程"]
