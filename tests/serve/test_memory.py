"""What the endpoint remembers has bounds of number and of age."""

from __future__ import annotations

from serve.memory import Memory


def test_the_one_not_used_for_longest_goes() -> None:
    memory = Memory[int](most=2, kept_s=float("inf"))
    memory.put("a", 1)
    memory.put("b", 2)
    assert memory.get("a") == 1
    memory.put("c", 3)
    assert [memory.get(key) for key in "abc"] == [1, None, 3]
    memory.clear()
    assert memory.get("a") is None


def test_what_is_old_goes_though_it_is_used() -> None:
    now = [0.0]
    memory = Memory[int](most=2, kept_s=10, clock=lambda: now[0])
    memory.put("a", 1)
    now[0] = 9.0
    assert memory.get("a") == 1
    now[0] = 10.0
    assert memory.get("a") is None
    memory.put("a", 2)
    assert memory.get("a") == 2
