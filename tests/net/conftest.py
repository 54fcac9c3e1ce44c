"""What holds for the tests of net."""

from tests.net.leaks import nothing_is_left as nothing_is_left
