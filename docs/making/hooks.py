"""What MkDocs calls while it builds the site: adds the pages that follow from the code, so that they cannot drift."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # MkDocs runs this file by its path
    sys.path.insert(0, str(ROOT))

from mkdocs.structure.files import File, Files

from docs.making import cli_reference, config_reference, error_page, markdown, notebooks, python_reference


def on_config(config: Any) -> Any:
    """Fills the parts of the navigation that follow from the code."""
    fill(config.nav, "Commands", cli_reference.navigation())
    fill(config.nav, "Python", python_reference.navigation())
    return config


def fill(nav: list[Any], name: str, pages: list[Any]) -> None:
    for item in nav:
        for title, inner in item.items() if isinstance(item, dict) else ():
            if title == name:
                item[title] = pages
            elif isinstance(inner, list):
                fill(inner, name, pages)


def on_files(files: Files, config: Any) -> Files:
    made = {
        **cli_reference.pages(),
        **python_reference.pages(),
        **notebooks.pages(),
        **markdown.root_pages(),
        "reference/config.md": config_reference.page(),
        "reference/errors.md": error_page.page(),
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(text: str, **_: Any) -> str:
    return markdown.for_python_markdown(text)


SHIM = "https://unpkg.com/iframe-worker/shim"  # of the plugin `offline`
OURS = "assets/search_from_a_folder.js"


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """No page asks a server for anything."""
    return output.replace(SHIM, "../" * page.url.count("/") + OURS)


def on_post_template(output: str, template_name: str, **_: Any) -> str:
    return output.replace(SHIM, OURS)
