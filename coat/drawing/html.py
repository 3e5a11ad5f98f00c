"""What all our HTML pages share: the head of the document, and pieces of markup.

A page needs no network: pictures and sounds are in it, as data URLs. Texts that come from strangers are escaped.
"""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from importlib.resources import files as package_files
from typing import Any


def html_document(title: str, policy: str, style: str, body: str) -> bytes:
    """A whole page. `policy` is its Content-Security-Policy; `style` follows the CSS that all pages share."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{read_asset("coat.drawing", "page.css")}{style}</style>
</head>
<body>
{body}
</body>
</html>
""".encode()


def script_policy(script: str, allowed: str = "media-src data:") -> str:
    """A Content-Security-Policy under which one script runs, and nothing is loaded but pictures in the page and what is
    `allowed` beside.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; {allowed}; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def read_asset(package: str, name: str) -> str:
    """A text file (CSS, JavaScript) that lies beside the modules of a package."""
    return (package_files(package) / name).read_text(encoding="utf-8")


def definition_list(css_class: str, items: Mapping[str, Any]) -> str:
    """A `<dl>` of names and values; empty where there are none."""
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in items.items())
    return f'<dl class="{css_class}">{rows}</dl>' if rows else ""


def data_url(mime_type: str, data: bytes) -> str:
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"
