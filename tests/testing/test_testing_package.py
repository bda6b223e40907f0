"""
What a program that uses the package for its tests gets: names, fixtures, a guide that is true.
"""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from kimi_async import testing
from kimi_async.testing.faults import Fault

# --- the package ---------------------------------------------------------------------------------------


def test_import_of_testing_is_light() -> None:
    """
    The package, and the pytest plugin that every test run loads, bring in neither aiohttp nor the client.
    """
    code = "import sys, kimi_async.testing.pytest_plugin; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "kimi_async.testing.pytest_plugin" in loaded
    assert not {"aiohttp", "anyio", "tenacity", "kimi_async.client"} & set(loaded)


def test_testing_names_resolve() -> None:
    """Every name that the package offers is there."""
    assert [] == [name for name in testing.__all__ if not hasattr(testing, name)]
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = testing.nothing_such


def test_plugin_fixtures_work_in_a_users_suite(tmp_path: Any) -> None:
    """
    A stranger's test file, synchronous and asynchronous, gets a simulator and a client, and a mark configures them.
    """
    (tmp_path / "test_theirs.py").write_text(
        textwrap.dedent(
            """
            import urllib.request, urllib.error
            import pytest

            @pytest.fixture
            def anyio_backend():
                return "asyncio"

            @pytest.mark.anyio
            async def test_client(kimi_simulator, kimi_client):
                kimi_simulator.say("Forty-two.")
                reply = await kimi_client.chat.completions.create(
                    model="kimi-k3", messages=[{"role": "user", "content": "?"}]
                )
                assert "Forty-two." == reply.choices[0].message.content

            @pytest.mark.kimi_simulator(api_key="sk-other")
            def test_blocking(kimi_simulator):
                request = urllib.request.Request(
                    kimi_simulator.base_url + "/models", headers={"Authorization": "Bearer sk-other"}
                )
                assert 200 == urllib.request.urlopen(request).status

            def test_unused(kimi_client):
                pass
            """
        )
    )
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")])),
    }
    plugins = ["-p", "anyio", "-p", "kimi_async.testing.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", *plugins, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )

    assert "3 passed" in done.stdout, done.stdout + done.stderr


# --- what is written about it --------------------------------------------------------------------------


GUIDE = (Path(testing.__file__).parent / "README.md").read_text("utf-8")


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
def test_guide_examples_run(block: str) -> None:
    """The programs in the guide do what they say."""
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


def test_guide_names_every_fault() -> None:
    """A fault nobody can find might as well not be there."""
    table = GUIDE.partition("| layer | faults |")[2]

    assert [] == [kind.__name__ for kind in Fault.__subclasses__() if f"`{kind.__name__}`" not in table]
