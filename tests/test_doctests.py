"""The examples in the docstrings of the public interface run, and each of its parts has one."""

from __future__ import annotations

import doctest
from importlib import import_module
from types import ModuleType

import pytest

PUBLIC = {
    "fedvlr_plugin.api": ("run",),
    "fedvlr_plugin.integrations.recbole.register": ("register",),
    "fedvlr_plugin.experiment.store": ("ResultsStore",),
    "fedvlr_plugin.evaluation.randomization": ("sign_flip_tests",),
    "fedvlr_plugin.features.optional_encoders": ("TfidfEncoder",),
    "fedvlr_plugin.privacy.accounting": ("epsilon_of", "noise_for", "rounds_for"),
    "fedvlr_plugin.privacy.guarantee": ("default_delta",),
}
NEEDS = {"fedvlr_plugin.privacy.accounting": "dp_accounting"}


def examples(module: ModuleType) -> dict[str, doctest.DocTest]:
    """The docstrings of a module that hold examples, by the name of what they describe."""
    found = doctest.DocTestFinder(exclude_empty=True).find(module)
    return {test.name.removeprefix(f"{module.__name__}."): test for test in found if test.examples}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_examples_of_a_module_run(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    tests = examples(import_module(name))
    assert set(PUBLIC[name]) <= set(tests)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    output: list[str] = []
    for test in tests.values():
        runner.run(test, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)


def test_an_example_that_fails_is_found() -> None:
    module = ModuleType("wrong")
    module.__doc__ = ">>> 1 + 1\n3\n"
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(module, "wrong"):
        runner.run(test, out=lambda text: None)
    assert runner.summarize(verbose=False).failed == 1
