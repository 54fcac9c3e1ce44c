"""What holds for the tests of behaviour across processes."""

from tests.net.leaks import nothing_is_left as nothing_is_left
