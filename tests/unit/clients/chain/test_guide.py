"""docs/chain-client.md says everything that there is, and nothing that is not."""

import ast
import inspect
import re
from pathlib import Path

from grid_client import chain
from grid_client.chain.sync import IdentityApi, OpenAccessApi

GUIDE = (Path(__file__).resolve().parents[4] / "docs" / "chain-client.md").read_text()


def methods(face: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(face, inspect.isfunction) if not name.startswith("_")}


def test_every_call_is_in_its_table() -> None:
    everyone, own = (set(re.findall(r"`(\w+)\([\w, ]*\)`", part)) for part in calls())

    assert everyone == methods(OpenAccessApi)
    assert own == methods(IdentityApi) - everyone


def calls() -> list[str]:
    """What the tables have that stand before and after the words of identities alone."""
    section = GUIDE.split("## Calls")[1].split("## Exceptions")[0]
    rows = [[line for line in part.splitlines() if line.startswith("| `")] for part in section.split("Only on")]
    return ["\n".join(line.split(" | ")[0] for line in lines) for lines in rows]


def test_every_exception_is_in_the_table() -> None:
    rows = "\n".join(line for line in GUIDE.split("## Exceptions")[1].splitlines() if line.startswith("| `"))
    kinds = {name for name in chain.__all__ if inspect.isclass(kind := getattr(chain, name)) and is_ours(kind)}

    assert set(re.findall(r"`(\w*Pylon\w+)`", rows)) == kinds


def is_ours(kind: type) -> bool:
    return issubclass(kind, chain.BasePylonException)


def test_every_field_of_the_configuration_is_in_the_table() -> None:
    section = GUIDE.split("## Configuration")[1].split("## Calls")[0]
    named = {
        name
        for line in section.splitlines()
        for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }

    assert named - {"Config", "AsyncConfig"} == set(chain.Config.model_fields)


def test_the_examples_can_be_read_and_name_what_there_is() -> None:
    examples = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)

    assert len(examples) == 4
    imported = [node for text in examples for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    names = {name.name for node in imported if node.module == "grid_client.chain" for name in node.names}
    assert names <= set(chain.__all__)
