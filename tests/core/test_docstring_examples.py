"""The examples in the core's docstrings, run as they stand."""

import doctest
import importlib
import pkgutil

import pytest

import envoyou_core

MODULES = [module.name for module in pkgutil.walk_packages(envoyou_core.__path__, "envoyou_core.")]


@pytest.mark.parametrize("name", ["envoyou_core", *MODULES])
def test_the_examples_of_a_module_say_what_happens(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
