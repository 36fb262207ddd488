"""Who gets the next free places: fair between addresses, bounded, and nobody is passed over for ever."""

from pipedai.server.turns import Turns


def granted(turns):
    return [turn.granted for turn in turns]


def test_as_many_are_granted_as_there_are_places():
    turns = Turns(2)
    asked = [turns.ask("a", 1) for _ in range(3)]
    assert granted(asked) == [True, True, False]
    turns.leave(asked[0])
    assert granted(asked) == [False, True, True]
    assert turns.free == 0


def test_those_of_one_address_come_in_their_order():
    turns = Turns(1)
    held, *waiting = [turns.ask("a", 1) for _ in range(5)]
    for turn in waiting:
        turns.leave(held)
        assert turn.granted
        held = turn


def test_addresses_take_turns_however_many_one_of_them_has_waiting():
    turns = Turns(1)
    held = turns.ask("many", 1)
    many = [turns.ask("many", 1) for _ in range(50)]
    few = {name: turns.ask(name, 1) for name in ("b", "c")}
    order = []
    waiting = {id(turn): "many" for turn in many} | {id(t): name for name, t in few.items()}
    everybody = [*many, *few.values()]
    for _ in range(6):
        turns.leave(held)
        (held,) = [turn for turn in everybody if turn.granted]
        order.append(waiting[id(held)])
    assert order == ["many", "b", "c", "many", "many", "many"]


def test_an_address_that_comes_back_waits_behind_the_others():
    turns = Turns(1)
    held = turns.ask("a", 1)
    other, again = turns.ask("b", 1), turns.ask("a", 1)
    turns.leave(held)
    assert granted([other, again]) == [True, False]


def test_who_needs_two_places_is_not_overtaken_by_those_who_need_one():
    turns = Turns(2)
    first, second = turns.ask("a", 1), turns.ask("b", 1)
    large, small = turns.ask("c", 2), turns.ask("d", 1)
    turns.leave(first)
    assert granted([large, small]) == [False, False]
    turns.leave(second)
    assert granted([large, small]) == [True, False]
    turns.leave(large)
    assert small.granted
    assert turns.free == 1


def test_who_needs_more_places_than_there_are_gets_them_all():
    turns = Turns(1)
    large = turns.ask("a", 2)
    assert large.granted
    turns.leave(large)
    assert turns.free == 1


def test_who_leaves_while_waiting_gives_its_place_in_the_queue_back():
    turns = Turns(1)
    held, gone, next_one = (turns.ask(name, 1) for name in "abc")
    turns.leave(gone)
    turns.leave(held)
    assert next_one.granted
    assert turns.waiting == 0


def test_the_large_one_that_leaves_lets_those_behind_it_pass():
    turns = Turns(2)
    turns.ask("a", 1)
    large, small = turns.ask("b", 2), turns.ask("c", 1)
    assert not small.granted
    turns.leave(large)
    assert small.granted


def test_leaving_twice_gives_nothing_back_twice():
    turns = Turns(1)
    turn = turns.ask("a", 1)
    turns.leave(turn)
    turns.leave(turn)
    assert turns.free == 1


def test_an_address_has_only_so_many_waiting():
    turns = Turns(1, most_of_an_address=2)
    asked = [turns.ask("a", 1) for _ in range(5)]
    assert [turn.refused for turn in asked] == [False, False, False, True, True]
    assert not turns.ask("b", 1).refused


def test_a_full_queue_makes_room_at_the_cost_of_whoever_has_most_waiting():
    turns = Turns(1, most_waiting=4)
    turns.ask("a", 1)
    many = [turns.ask("a", 1) for _ in range(4)]
    other = turns.ask("b", 1)
    assert [turn.refused for turn in many] == [False, False, False, True]
    assert not other.refused
    assert turns.waiting == 4
    assert turns.ask("a", 1).refused
    assert turns.waiting == 4
