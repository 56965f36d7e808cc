"""Registries: nearest names, duplicates refused, entry points read once, broken ones named and left out."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from fedvlr_plugin.errors import ConfigError, UnknownNameError
from fedvlr_plugin.registry import Registry

GROUP = "fedvlr_plugin.test_of_registries"


def install(site: Path, name: str, points: dict[str, str], modules: dict[str, str]) -> None:
    """A distribution of modules that declares entry points of the group, in a folder on the path."""
    info = site / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()))
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


def test_names_ignore_case_and_unknown_ones_get_the_nearest() -> None:
    registry: Registry[int] = Registry("number")
    registry.add("One", 1)
    registry.register("Three")(3)
    assert (registry.get("ONE"), registry.canonical("three"), list(registry)) == (1, "Three", ["One", "Three"])
    assert registry.origin("one") == "fedvlr-plugin"
    with pytest.raises(UnknownNameError, match="unknown number 'thre'. Did you mean 'Three'"):
        registry.get("thre")


def test_duplicates_are_refused_and_repetition_is_not() -> None:
    registry: Registry[list[int]] = Registry("list")
    member = [1]
    registry.add("a", member)
    registry.add("A", member)
    with pytest.raises(ConfigError, match="the list name 'A' is taken by .* of fedvlr-plugin"):
        registry.add("A", [1])


def test_an_entry_point_is_a_member_or_a_module_that_registers(site: Path) -> None:
    registry: Registry[object] = Registry("thing", GROUP)
    install(site, "good-things", {"plain": "good_plain:THING"}, {"good_plain": "THING = 42\n"})
    assert "PLAIN" in registry and registry.get("plain") == 42
    assert registry.origin("plain") == "good-things 1.5"
    assert registry.problems() == []


def test_a_broken_entry_point_is_named_by_its_package_and_left_out_until_asked_for(site: Path) -> None:
    install(site, "good-things", {"plain": "good_plain:THING"}, {"good_plain": "THING = 42\n"})
    install(
        site,
        "bad-things",
        {"broken": "bad_import:THING", "gone": "good_plain:NOT_THERE", "built": "good_plain:THING"},
        {"bad_import": "raise RuntimeError('no\\nlibrary')\n"},
    )
    registry: Registry[object] = Registry("thing", GROUP)
    registry.add("built", "ours")
    with pytest.warns(RuntimeWarning) as warned:
        assert registry.names() == ["built", "plain"]
    assert len(warned) == 3 and all("of bad-things 1.5" in str(each.message) for each in warned)
    assert registry.get("built") == "ours"
    with pytest.raises(
        ConfigError, match="thing 'broken' of bad-things 1.5 .* cannot be used: RuntimeError: no library"
    ):
        registry.get("Broken")
    with pytest.raises(ConfigError, match="'gone' of bad-things"):
        registry.get("gone")
    with pytest.raises(UnknownNameError):
        registry.get("else")


def test_two_packages_of_one_name_are_both_left_out(site: Path) -> None:
    for package, value in (("first-things", "x_first:THING"), ("second-things", "x_second:THING")):
        install(site, package, {"Plain" if package[0] == "f" else "plain": value}, {value.split(":")[0]: "THING = 1\n"})
    registry: Registry[object] = Registry("thing", GROUP)
    with pytest.warns(RuntimeWarning, match="declared by first-things 1.5 and second-things 1.5"):
        assert "plain" not in registry
    with pytest.raises(ConfigError, match="uninstall all but one"):
        registry.get("plain")
