"""What holds for the tests of the examples."""

from tests.net.leaks import nothing_is_left as nothing_is_left
