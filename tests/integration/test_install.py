"""deploy/install.py: uv asks the indexes that pip is configured for, unless it has its own."""

import runpy
from typing import Any

import pytest

from tests.integration.helpers import ROOT


@pytest.fixture(scope="module")
def install() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "deploy" / "install.py"))


LISTED = r"""
:env:.default-timeout='180'
global.extra-index-url='https://more.example/simple file:///a/simple'
global.find-links='\n/wheels\n/other'
global.index-url='https://global.example/simple'
install.index-url='https://install.example/simple'
""".strip()


def test_pips_settings_go_to_uv(install: dict[str, Any]) -> None:
    settings = install["pip_settings"](LISTED)
    assert install["uv_environment"](settings, {}) == {
        "UV_DEFAULT_INDEX": "https://install.example/simple",
        "UV_INDEX": "https://more.example/simple file:///a/simple",
        "UV_FIND_LINKS": "/wheels,/other",
        "UV_HTTP_TIMEOUT": "180",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_the_default_index_is_asked_alone_first(install: dict[str, Any]) -> None:
    settings = install["pip_settings"](LISTED)
    alone = install["uv_environment"](settings, {}, extra_indexes=False)
    assert install["uv_environment"](settings, {}) == {
        **alone,
        "UV_INDEX": "https://more.example/simple file:///a/simple",
    }


def test_the_environment_of_pip_comes_first(install: dict[str, Any]) -> None:
    settings = install["pip_settings"](LISTED + "\n:env:.index-url='https://env.example/simple'\n:env:.no-index='1'")
    passed_on = install["uv_environment"](settings, {})
    assert passed_on["UV_DEFAULT_INDEX"] == "https://env.example/simple"
    assert passed_on["UV_NO_INDEX"] == "1"


def test_what_uv_has_of_its_own_stays(install: dict[str, Any]) -> None:
    settings = install["pip_settings"](LISTED)
    passed_on = install["uv_environment"](
        settings, {"UV_INDEX_URL": "https://own.example/simple", "UV_HTTP_TIMEOUT": "9"}
    )
    assert not passed_on.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_HTTP_TIMEOUT"}


def test_where_nothing_is_configured_uv_has_its_defaults(install: dict[str, Any]) -> None:
    assert install["pip_settings"]("") == {}
    assert install["uv_environment"]({}, {}) == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


def test_every_line_of_constraints_is_a_pin(install: dict[str, Any]) -> None:
    pins = [line.partition("==") for line in install["CONSTRAINTS"].read_text().splitlines()]
    assert all(by == "==" and version for _, by, version in pins)
    assert "uv" in [name for name, _, _ in pins]
